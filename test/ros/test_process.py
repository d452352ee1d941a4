"""Settings of the node's process, and where its log goes."""

import logging
import os
import signal
import sys
import types

import pytest

from hybrid_seg_ros.process_memory import limit_threads, wait_briefly
from hybrid_seg_ros.ros.health.reporting import LogForwarder
from hybrid_seg_ros.ros.segmentation_node import stop_event


def test_threads_are_limited_before_and_after_torch_is_loaded(monkeypatch):
    counts = []
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    monkeypatch.setitem(sys.modules, 'torch', types.SimpleNamespace(set_num_threads=counts.append))
    limit_threads(None)
    assert os.environ['OMP_NUM_THREADS'] == '7' and counts == []
    limit_threads(2)
    assert os.environ['OMP_NUM_THREADS'] == '2' and counts == [2]


def test_openmp_spins_briefly_unless_told_otherwise(monkeypatch):
    for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'):
        monkeypatch.setenv(name, '')  # so that it is put back
        monkeypatch.delenv(name)
    wait_briefly()
    assert (os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT']) == ('PASSIVE', '10000')
    monkeypatch.delenv('GOMP_SPINCOUNT')
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    wait_briefly()
    assert os.environ['OMP_WAIT_POLICY'] == 'ACTIVE' and 'GOMP_SPINCOUNT' not in os.environ


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_event_and_a_second_one_would_end_the_process(number):
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        event = stop_event()
        assert not event.is_set()
        signal.raise_signal(number)
        assert event.is_set() and {signal.getsignal(n) for n in handlers} == {signal.SIG_DFL}
    finally:
        for n, handler in handlers.items():
            signal.signal(n, handler)


def test_the_core_logs_through_ros():
    lines = []
    levels = ('debug', 'info', 'warning', 'error')
    logger = types.SimpleNamespace(**{name: lambda text, name=name: lines.append((name, text)) for name in levels})
    core = logging.getLogger('hybrid_seg_ros.network')
    forwarder = LogForwarder(logger)
    forwarder.attach()
    try:
        core.info('loaded %d', 3)
        core.warning('slow')
        core.critical('gone')
    finally:
        forwarder.detach()
    core.warning('to nobody')
    assert lines == [('info', 'loaded 3'), ('warning', 'slow'), ('error', 'gone')]
