"""The systemd unit is one that systemd takes, and starts what this package has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hybrid_seg_ros.ros.parameters import DECLARATIONS

ROOT = Path(__file__).parents[1]
UNIT = ROOT / 'config' / 'systemd' / 'hybrid_seg.service'


def settings() -> dict[str, list[str]]:
    """Return the values of every setting, in order; a backslash at the end of a line goes on in the next."""
    text = UNIT.read_text(encoding='utf-8').replace('\\\n', ' ')
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith(('#', '[')):
            name, _, value = line.partition('=')
            found.setdefault(name, []).append(value)
    return found


def shell_command() -> str:
    """Return what bash gets: systemd turns $$ into $."""
    (start,) = settings()['ExecStart']
    return re.fullmatch(r"/bin/bash -c '(.*)'", start).group(1).replace('$$', '$')


def launch_arguments() -> set[str]:
    """Return those that the launch file names, and the node's parameters, which it makes arguments in a loop."""
    text = (ROOT / 'launch' / 'segmentation.launch.py').read_text(encoding='utf-8')
    named = set(re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", text))
    return named | {declaration.name for declaration in DECLARATIONS}


def test_systemd_accepts_it():
    verify = shutil.which('systemd-analyze')
    if verify is None:
        pytest.skip('systemd-analyze is missing')
    done = subprocess.run([verify, 'verify', str(UNIT)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0 and not complaints, done.stderr


def test_bash_accepts_its_command_and_ros2_becomes_the_main_process():
    done = subprocess.run(['bash', '-n', '-c', shell_command()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '&& exec ros2 launch' in re.sub(r'\s+', ' ', shell_command())


def test_it_launches_this_package_with_arguments_that_exist():
    package, file, arguments = re.search(r'ros2 launch (\S+) (\S+) (.*)', shell_command()).groups()
    assert package == 'hybrid_seg_ros' and (ROOT / 'launch' / file).is_file()
    (given,) = (value for value in settings()['Environment'] if 'LAUNCH_ARGUMENTS' in value)
    names = set(re.findall(r'(\w+):=', arguments + ' ' + given + ' ' + UNIT.read_text(encoding='utf-8')))
    assert {'respawn', 'image', 'params_file'} <= names <= launch_arguments()


def test_the_command_line_that_it_starts(tmp_path):
    """Bash runs the real command with programs of ours in the place of ROS 2's."""
    (tmp_path / 'ros2').write_text('#!/bin/sh\nprintf "%s\\n" "$0 is $$" "$@"\n')
    (tmp_path / 'ros2').chmod(0o755)
    (tmp_path / 'setup.bash').write_text(f'export PATH={tmp_path}:$PATH\n')
    command = re.sub(r'/opt/\S+/(setup\.bash|activate)', str(tmp_path / 'setup.bash'), shell_command())
    environment = {'PATH': '/usr/bin:/bin', 'LAUNCH_ARGUMENTS': 'image:=/camera/image_raw keep:=0.6'}
    process = subprocess.Popen(['bash', '-c', command], env=environment, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=10)
    assert output.splitlines() == [
        f'{tmp_path}/ros2 is {process.pid}', 'launch', 'hybrid_seg_ros', 'segmentation.launch.py', 'respawn:=true',
        'image:=/camera/image_raw', 'keep:=0.6',
    ]  # fmt: skip


def test_stopping_is_left_to_launch():
    """A second SIGINT ends the node at once, and launch sends one; it takes up to 10 s to give up."""
    given = settings()
    assert given['KillMode'] == ['mixed'] and given['KillSignal'] == ['SIGINT']
    assert int(given['TimeoutStopSec'][0]) > 10
    assert given['Restart'] == ['on-failure']


def test_the_cache_is_where_the_package_looks_for_it():
    given = settings()
    assert f'HYBRID_SEG_CACHE_DIR=%C/{given["CacheDirectory"][0]}' in given['Environment']
    assert f'ROS_LOG_DIR=%L/{given["LogsDirectory"][0]}' in given['Environment']
