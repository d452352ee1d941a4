"""What the person at the terminal sees: a bar there, lines elsewhere, the time left; and what Ctrl-C does."""

import contextlib
import fcntl
import logging
import os
import pty
import signal
import struct
import sys
import termios
import time

import pytest

from hybrid_seg_ros.training import terminal
from hybrid_seg_ros.training.terminal import SIGNALS, Interruption, Progress


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption(notify=False) as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_is_not_worth_finishing_stops_at_the_first_signal():
    with Interruption(notify=False) as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            raise AssertionError('not reached: a stop was requested before')


def test_a_signal_that_torchrun_passes_on_is_the_same_request(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
    with Interruption(same_request_s=2.0, notify=False) as interruption:
        for seconds in (0.0, 0.1, 1.9):
            clock[0] = 100.0 + seconds
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested
        clock[0] = 102.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(terminal.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(terminal.sys.stderr, 'isatty', lambda: False, raising=False)
    with caplog.at_level(logging.INFO):
        shown = Progress(1000, 500)
        for step in range(500, 1000):
            now[0] += 1.0 if step < 600 else 0.01
            shown.step(step + 1, {'loss': 2.0, 'learning_rate': 0.1})
        shown.close()
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[1] for line in lines] == ['501', '531', '561', '591', '691', '791', '891', '991', '1000']
    assert lines[1] == 'step 531 of 1000: loss 2.0000; 1.00 s a step, 07:49 left'
    assert lines[-1].endswith('00:00 left')


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    reading_end, other_end = pty.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    with open(other_end, 'w', encoding='utf-8') as stream:
        monkeypatch.setattr(sys, 'stderr', stream)
        bar = Progress(4, 2)
        for done in (3, 4):
            bar.step(done, {'loss': 1.5})
        bar.close()
    text = b''
    with contextlib.suppress(OSError):  # how a terminal ends that nobody writes to any more
        while chunk := os.read(reading_end, 65536):
            text += chunk
    os.close(reading_end)
    assert b'4/4' in text and b'loss=1.500' in text, text
