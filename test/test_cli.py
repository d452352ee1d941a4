"""The command line: help without heavy imports, errors in one line, exit codes, and every command there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybrid_seg_ros import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def probe(monkeypatch):
    """Register a command `probe` whose run() does what the test says."""

    def register(action):
        module = SimpleNamespace(
            add_arguments=lambda parser: parser.add_argument('--size', nargs=2, type=int), run=action)
        monkeypatch.setattr(cli.Command, 'load', lambda command: module)
        monkeypatch.setitem(cli.COMMANDS, 'probe', cli.Command('probe_module', 'a probe'))

    return register


def raises(error):
    def action(args):
        raise error

    return action


def test_help_lists_all_commands_without_torch_or_ros():
    code = ('import sys; from hybrid_seg_ros import cli\n'
            'try: cli.main(["--help"])\n'
            'except SystemExit as end: assert end.code == 0\n'
            'print("loaded:", sorted({"torch", "rclpy", "cv2", "numpy"} & set(sys.modules)))')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('loaded: []\n')
    for name, command in cli.COMMANDS.items():
        assert re.search(rf'^ +{name}\s+{re.escape(command.help.split()[0])}', done.stdout, re.MULTILINE), name


def test_package_gives_load_pipeline_late():
    code = ('import sys, hybrid_seg_ros\n'
            'assert "torch" not in sys.modules\n'
            'from hybrid_seg_ros import load_pipeline\n'
            'assert callable(load_pipeline)')
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=120)


def test_package_has_no_other_attribute():
    import hybrid_seg_ros

    with pytest.raises(AttributeError, match='no_such_thing'):
        _ = hybrid_seg_ros.no_such_thing


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_shows_its_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, '--help'])
    assert end.value.code == 0
    assert f'usage: hybrid_seg {name}' in capsys.readouterr().out


@pytest.mark.parametrize('argv, complaint', [([], 'COMMAND'), (['nope'], 'choose from'), (['--nope'], 'COMMAND')])
def test_wrong_usage_lists_what_is_legal(argv, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert complaint != 'choose from' or all(name in error for name in cli.COMMANDS)


@pytest.mark.parametrize('status', [0, 1, 3])
def test_status_of_the_command_is_returned(probe, status):
    seen = []
    probe(lambda args: seen.append(args.size) or status)
    assert cli.main(['probe', '--size', '360', '480']) == status
    assert seen == [[360, 480]]


@pytest.mark.parametrize(
    'error, text',
    [
        (ValueError('expected 3 channels,\n got 4'), 'expected 3 channels, got 4'),
        (FileNotFoundError(2, 'No such file or directory', 'm.yaml'), 'No such file or directory: m.yaml'),
        (FileNotFoundError('no weights beside m.yaml'), 'no weights beside m.yaml'),
        (ModuleNotFoundError("No module named 'rclpy'"), "No module named 'rclpy'; is the environment set up"),
        (ValueError(), 'ValueError'),
    ],
)
def test_expected_errors_take_one_line(probe, capsys, error, text):
    probe(raises(error))
    assert cli.main(['probe']) == cli.EXIT_ERROR
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f'hybrid_seg probe: {text}')


@pytest.mark.parametrize('argv', [['--debug', 'probe'], ['probe', '--debug']])
def test_debug_shows_the_traceback(probe, capsys, argv):
    probe(raises(ValueError('bad')))
    assert cli.main(argv) == cli.EXIT_ERROR
    assert 'Traceback' in capsys.readouterr().err


def test_our_own_mistakes_are_not_hidden(probe):
    probe(raises(KeyError('a bug')))
    with pytest.raises(KeyError):
        cli.main(['probe'])


def test_interrupt(probe, capsys):
    probe(raises(KeyboardInterrupt()))
    assert cli.main(['probe']) == 130
    assert 'Traceback' not in capsys.readouterr().err


@pytest.mark.parametrize('given', [None, 'ACTIVE'])
def test_the_threads_of_all_commands_do_not_spin_for_long(monkeypatch, given):
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    if given:
        monkeypatch.setenv('OMP_WAIT_POLICY', given)
    seen = {}
    module = SimpleNamespace(add_arguments=lambda parser: None, run=lambda args: 0)
    monkeypatch.setattr(
        cli.Command, 'load', lambda command: seen.update(policy=os.environ.get('OMP_WAIT_POLICY')) or module
    )
    for name in cli.COMMANDS:
        assert cli.main([name]) == 0 and seen.pop('policy') == (given or 'PASSIVE')
        if not given:
            monkeypatch.delenv('OMP_WAIT_POLICY')


@pytest.mark.parametrize(('message', 'typed', 'shown'), [
    ('merged_windows: expected at most 12', ['--merged-windows', '99'], '--merged-windows: expected at most 12'),
    ('merged_windows: expected at most 12', ['--merged-windows=99'], '--merged-windows: expected at most 12'),
    ('unknown mask_size x; legal are a', ['--mask-size', 'x'], 'unknown --mask-size x; legal are a'),
    ('input_size_hw: expected 2 numbers', ['--input-size', '1', '2'], '--input-size: expected 2 numbers'),
    ('keep: expected a count >= 1', ['--keep', '0'], '--keep: expected a count >= 1'),
    ('keep_per_class: expected', ['--keep', '0'], 'keep_per_class: expected'),
    ('m.yaml: keep: expected a count', ['--keep', '3'], 'm.yaml: keep: expected a count'),
    ('merged_windows: expected at most 12', ['--model', 'm.yaml'], 'merged_windows: expected at most 12'),
    ('the model has no size', ['--size', '3'], 'the model has no size'),
    ('out/mask_size/a.png: no such file', ['--mask-size', 'x'], 'out/mask_size/a.png: no such file'),
])  # fmt: skip
def test_errors_name_options_as_they_were_typed(message, typed, shown):
    assert cli.as_typed(message, ['export', *typed]) == shown
