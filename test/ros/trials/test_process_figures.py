"""What /proc says of a process."""

import os
import subprocess
import sys

import pytest

from hybrid_seg_ros.ros.trials.process_figures import process_figures

CHILD = """
import mmap, sys, threading
print('started', flush=True)
sys.stdin.readline()
own, shared = bytearray(b'x') * (64 << 20), mmap.mmap(-1, 32 << 20)
shared.write(b'x' * len(shared))
file = open(sys.executable, 'rb')
threading.Thread(target=threading.Event().wait, daemon=True).start()
print('grown', flush=True)
sys.stdin.readline()
"""


def test_memory_threads_files_and_time_are_counted():
    # A process of its own: what else a test's process lets go of meanwhile is not in the difference.
    command, pipe = [sys.executable, '-c', CHILD], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout.readline() == 'started\n'
        before = process_figures(child.pid)
        print(file=child.stdin, flush=True)
        assert child.stdout.readline() == 'grown\n'
        after = process_figures(child.pid)
        child.stdin.close()
    assert after.anonymous_mib - before.anonymous_mib == pytest.approx(64, abs=16)
    assert after.shared_mib - before.shared_mib == pytest.approx(32, abs=8)
    assert after.resident_mib - before.resident_mib == pytest.approx(96, abs=24)
    assert after.threads == before.threads + 1 and after.open_files == before.open_files + 1
    assert 0 < before.cpu_s <= after.cpu_s


def test_a_process_that_is_gone():
    child = subprocess.Popen([sys.executable, '-c', ''])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and waits to be asked for its status
    with pytest.raises(OSError, match='has ended'):
        process_figures(child.pid)
    child.wait()
    with pytest.raises(OSError):
        process_figures(child.pid)
