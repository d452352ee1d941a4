"""`colcon build` on a copy of the tree, and what ros2 run and ros2 launch look for in the result."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = 'hybrid_seg_ros'
SHARED_FOLDERS = ('launch', 'config', 'models', 'bags')


@pytest.fixture(scope='module')
def prefix(tmp_path_factory):
    """Build a copy of the sources and return the package's install folder."""
    colcon = ROOT / '.venv-colcon' / 'bin' / 'colcon'
    program = str(colcon) if colcon.exists() else shutil.which('colcon')
    if program is None:
        pytest.skip('colcon is missing; `make test` installs it')
    workspace = tmp_path_factory.mktemp('workspace')
    source = workspace / 'src' / NAME
    left_out = shutil.ignore_patterns('.*', '__pycache__', '*.egg-info', '*.partial', 'build', 'install', 'log', 'out')
    shutil.copytree(ROOT, source, ignore=left_out)
    done = subprocess.run([program, 'build'], cwd=workspace, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'Finished <<< {NAME}' in done.stdout, done.stdout
    return workspace / 'install' / NAME


@pytest.mark.parametrize('program', ['segmentation_node', 'hybrid_seg'])
def test_programs_are_where_ros2_run_looks(prefix, program):
    path = prefix / 'lib' / NAME / program
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith('#!/usr/bin/env python3\n'), 'an active virtual environment would be ignored'


def test_resource_index_has_the_package(prefix):
    assert (prefix / 'share/ament_index/resource_index/packages' / NAME).is_file()
    assert (prefix / 'share' / NAME / 'package.xml').is_file()


@pytest.mark.parametrize('folder', SHARED_FOLDERS)
def test_shared_files_are_installed(prefix, folder):
    expected = {path.relative_to(ROOT) for path in (ROOT / folder).rglob('*')
                if path.is_file() and '__pycache__' not in path.parts and path.suffix != '.partial'}
    share = prefix / 'share' / NAME
    assert {path.relative_to(share) for path in (share / folder).rglob('*') if path.is_file()} == expected


def test_the_kernel_is_installed_beside_the_code_that_compiles_it(prefix):
    assert [path.parent.name for path in prefix.rglob('label_map.cu')] == ['tensorrt']


def test_installed_program_runs(prefix):
    command = f'. {prefix.parent}/setup.bash && {prefix}/lib/{NAME}/hybrid_seg --help'
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    python_path = f'{ROOT}/.venv-colcon/bin:{environment["PATH"]}'
    done = subprocess.run(['bash', '-c', command], cwd=prefix, env={**environment, 'PATH': python_path},
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: hybrid_seg')
