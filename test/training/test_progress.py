"""Progress: a bar on a terminal, lines elsewhere, each with the time that is left."""

import contextlib
import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from tiny_training import ENVIRONMENT, ROOT

from hybrid_seg_ros.training import terminal
from hybrid_seg_ros.training.terminal import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(terminal.sys.stderr, 'isatty', lambda: False, raising=False)
    return now


def test_without_a_terminal_there_is_a_line_now_and_then(clock, caplog):
    with caplog.at_level(logging.INFO):
        shown = Progress(1000, 500)
        for step in range(500, 1000):
            clock[0] += 1.0 if step < 600 else 0.01
            shown.step(step + 1, {'loss': 2.0, 'learning_rate': 0.1})
        shown.close()
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[1] for line in lines] == ['501', '531', '561', '591', '691', '791', '891', '991', '1000']
    assert lines[1] == 'step 531 of 1000: loss 2.0000; 1.00 s a step, 8 min left'
    assert lines[-1].endswith('0 s left')


def test_on_a_terminal_there_is_a_bar():
    code = ('from hybrid_seg_ros.training.terminal import Progress\n'
            'bar = Progress(4, 2)\n'
            'for done in (3, 4): bar.step(done, {"loss": 1.5})\n'
            'bar.close()')
    terminal, other_end = pty.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=ENVIRONMENT, stderr=other_end, check=True, timeout=60)
    os.close(other_end)
    text = b''
    with contextlib.suppress(OSError):  # how a terminal ends that nobody writes to any more
        while chunk := os.read(terminal, 65536):
            text += chunk
    os.close(terminal)
    assert b'4/4' in text and b'loss=1.500' in text, text


@pytest.mark.parametrize(
    'seconds, text',
    [(0, '0 s'), (89, '89 s'), (90, '2 min'), (3590, '1 h 00 min'), (3 * 3600 + 300, '3 h 05 min')],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
