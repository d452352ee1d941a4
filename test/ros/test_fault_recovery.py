"""What goes wrong before images come, and around the node; each test has a node process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from faulty_node import FAULTS
from node_harness import IMAGE_HW, NODE, Client, active_node, image_message, stopped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from tiny_model import write_lively_model, write_tiny_model

FAULTY_NODE = Path(__file__).with_name('faulty_node.py')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_lively_model(tmp_path_factory.mktemp('model'))


def fault(name: str) -> Image:
    return image_message(np.full((*IMAGE_HW, 3), FAULTS[name], np.uint8), 'rgb8')


@pytest.mark.parametrize(
    ('name', 'reason'), [('error', '3 images in a row could not be segmented'), ('hang', 'the backend hangs')]
)
def test_a_hopeless_backend_ends_the_process_where_that_is_wanted(start_node, model, name, reason):
    node = start_node(program=FAULTY_NODE, model_path=model, exit_after_failures=3)
    node.wait_for_output('waiting for images')
    with Client() as client:
        client.wait_for_node()
        client.spin_until(lambda: client.send(fault(name)) and not node.is_running, timeout_s=15.0)
    assert node.wait() == 1
    assert f'{reason}: giving up' in node.output


def test_a_signal_ends_the_node_while_it_is_being_configured(start_node, model):
    node = start_node(program=FAULTY_NODE, model_path=model, device='cpu:never', autostart=False)
    with Client() as client:
        assert client.state() == 'unconfigured'
        client.begin_transition('configure')
        client.status('model', lambda s: s.message.startswith('configuring'))
        client.status('model', lambda s: s.message.startswith('configuring'))  # again: diagnostics go on meanwhile
        assert node.stop(signal.SIGTERM) == 0, node.output
    assert 'told to stop while the model was being loaded' in node.output


def test_a_signal_ends_the_node_while_it_is_inactive(start_node, model):
    """In test_latency_budget.py the node is unconfigured in the end."""
    node = start_node(model_path=model, autostart=False)
    with Client() as client:
        assert client.transition('configure')
        assert client.state() == 'inactive'
    assert node.stop(signal.SIGTERM) == 0, node.output
    assert 'Traceback' not in node.output


def test_models_that_are_missing_damaged_or_others_and_transitions_that_are_not_legal(start_node, tmp_path):
    good = write_tiny_model(tmp_path)
    weights = tmp_path / 'tiny.safetensors'
    whole = weights.read_bytes()
    other = write_tiny_model(tmp_path / 'other', name='other', input_size_hw=(64, 64), resize='stretch')
    graph = tmp_path / 'graph.onnx'
    graph.write_bytes(b'\x08\x08 not all of it')
    node = start_node(model_path='/nowhere/model.yaml')
    node.wait_for_output('/nowhere/model.yaml: no such file')
    with Client() as client:
        status = client.status('model', lambda s: s.level == DiagnosticStatus.ERROR)
        assert 'no such file' in status.message
        assert not client.transition('configure')
        assert client.set_parameter('model_path', str(good)).successful
        for label in ('activate', 'deactivate', 'cleanup'):
            assert not client.transition(label)
            assert client.state() == 'unconfigured'

        weights.write_bytes(whole[: len(whole) // 2])
        assert not client.transition('configure')
        client.status('model', lambda s: s.level == DiagnosticStatus.ERROR and 'sha256' in s.message)
        weights.unlink()
        assert not client.transition('configure')
        client.status('model', lambda s: s.level == DiagnosticStatus.ERROR and 'does not exist' in s.message)
        assert client.state() == 'unconfigured'
        weights.write_bytes(whole)

        for name, value in (('backend', 'onnxruntime'), ('engine_path', str(graph))):
            assert client.set_parameter(name, value).successful
        assert not client.transition('configure')
        client.status('model', lambda s: s.level == DiagnosticStatus.ERROR and 'expected an ONNX file' in s.message)
        for name, value in (('backend', 'pytorch'), ('engine_path', '')):
            assert client.set_parameter(name, value).successful

        sizes = []
        for path in (good, other):
            assert client.set_parameter('model_path', str(path)).successful
            assert client.transition('configure') and client.transition('activate')
            client.wait_for_node()
            client.listen('~/mask', Image)
            mask = client.answer('~/mask', client.ask('~/mask'))
            sizes.append((mask.height, mask.width))
            assert not client.transition('configure') and not client.transition('cleanup')
            assert client.state() == 'active'
            assert client.transition('deactivate') and client.transition('cleanup')
        assert sizes == [(96, 128), (64, 64)]
        assert client.transition('shutdown')
    assert node.stop(signal.SIGTERM) == 0, node.output


def test_graphs_are_made_when_the_node_is_configured_and_anew_when_damaged(model, tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    monkeypatch.setenv('HYBRID_SEG_CACHE_DIR', str(cache))
    settings = {'model_path': model, 'backend': 'onnxruntime', 'variant': 'cts'}
    with active_node(tmp_path, **settings) as node, Client() as client:
        assert len(list((cache / 'graphs').iterdir())) == 1
        graph = next(cache.rglob('*.onnx'))
        graph.write_bytes(graph.read_bytes()[:1000])
        assert client.restart()
        assert node.output.count('to ONNX; once, kept in') == 2
        client.wait_for_node()
        client.listen('~/mask', Image)
        client.ask('~/mask')


def test_subscribers_that_hang_and_clocks_that_jump_back_hold_nothing_up(start_node, model):
    node = start_node(model_path=model, use_sim_time=True)
    node.wait_for_output('waiting for images')
    hanging = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name('echo_node.py')), '--raw', '--image', f'{NODE}/mask',
         '--mask', '/elsewhere'])  # fmt: skip
    try:
        with Client() as client:
            client.wait_for_node()
            client.listen('~/mask', Image)
            client.wait(lambda: client.node.count_subscribers(f'{NODE}/mask') >= 2, 'the other subscriber')
            client.ask('~/mask')
            with stopped(hanging):
                for _ in range(20):  # more than its queue holds
                    client.ask('~/mask')
            clock = client.node.create_publisher(Clock, '/clock', 10)
            for second in (5000, 5001, 100, 101):
                message = Clock()
                message.clock.sec = second
                clock.publish(message)
                client.spin_for(0.2)
                client.ask('~/mask')
            client.forget()
            client.wait(lambda: len(client.received['/diagnostics']) >= 2, 'diagnostics while the clock stands still')
            stamps = [array.header.stamp.sec for array in client.received['/diagnostics']]
            assert stamps[-1] == 101
    finally:
        hanging.kill()
        hanging.wait()
    assert node.stop(signal.SIGTERM) == 0, node.output
    assert 'Traceback' not in node.output
