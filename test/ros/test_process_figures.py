"""What /proc says of a process."""

import mmap
import os
import subprocess
import sys
import threading

import pytest

from hybrid_seg_ros.ros.process_figures import process_figures

MIB = 1 << 20


def test_memory_threads_files_and_time_are_counted():
    before = process_figures(os.getpid())
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    try:
        own, shared = bytearray(b'x') * (64 * MIB), mmap.mmap(-1, 32 * MIB)
        shared.write(b'x' * (32 * MIB))
        with open(__file__, 'rb'):
            after = process_figures(os.getpid())
    finally:
        wait.set()
        thread.join()
    assert after.anonymous_mib - before.anonymous_mib == pytest.approx(64, abs=16) and len(own) == 64 * MIB
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
