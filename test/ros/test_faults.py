"""What goes wrong on a robot, done to the real node process: it works on, or stands in a clean state and says why."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from faulty_node import FAULTS, HANG_S, SLOW_S
from node_harness import IMAGE_HW, NODE, QUIET_S, Client, NodeProcess, image_message, stamp_of, street
from sensor_msgs.msg import Image
from tiny_model import write_lively_model

FAULTY_NODE = Path(__file__).with_name('faulty_node.py')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_lively_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def faulty(model, tmp_path_factory):
    """Start one node whose inference fails where a picture asks for it; each test leaves it active."""
    log = tmp_path_factory.mktemp('node') / 'node.log'
    node = NodeProcess(log, 'image:=/camera/image', program=FAULTY_NODE, model_path=model)
    node.wait_for_output('waiting for images')
    yield node
    assert node.stop(signal.SIGINT) == 0, node.output


@pytest.fixture(scope='module')
def session(faulty):
    with Client() as client:
        client.wait_for_node()
        client.listen('~/mask', Image)
        yield client


@pytest.fixture
def client(faulty, session):
    session.forget()
    yield session
    assert faulty.is_running, faulty.output
    assert session.state() == 'active'
    session.ask('~/mask')


def fault(name: str) -> Image:
    return image_message(np.full((*IMAGE_HW, 3), FAULTS[name], np.uint8), 'rgb8')


def send_until(client, name, condition, what):
    """Send frames that fail until the condition holds; return their stamps."""
    stamps = []

    def holds():
        stamps.append(client.send(fault(name)))
        client.spin_for(0.1)
        return condition()

    client.wait(holds, what)
    return stamps


@pytest.mark.parametrize(
    ('name', 'text'),
    [('error', 'RuntimeError: the backend is out of order'), ('memory', 'out of memory: RuntimeError: CUDA out of')],
)
def test_a_backend_that_raises_is_reported_and_the_next_frame_segmented(client, faulty, name, text):
    client.ask('~/mask')
    client.forget()

    def is_error():
        return any(s.level == DiagnosticStatus.ERROR and text in s.message for s in client.statuses())

    failed = send_until(client, name, is_error, 'an ERROR on segmentation')
    assert not {stamp_of(mask) for mask in client.received['~/mask']} & set(failed)
    assert f'segmentation failed: {text}' in faulty.output
    client.ask('~/mask')
    client.status('segmentation', lambda s: s.level == DiagnosticStatus.OK and 'masks/s' in s.message)


def test_deactivation_waits_for_the_frame_in_flight(client):
    client.spin_for(0.5)
    client.forget()
    slow = client.send(fault('slow'))
    client.spin_for(0.3)
    start_s = time.monotonic()
    assert client.transition('deactivate')
    assert time.monotonic() - start_s < 4 * SLOW_S
    assert client.answer('~/mask', slow), 'finished, not dropped'
    client.forget()
    client.spin_for(QUIET_S + SLOW_S)
    assert not client.received['~/mask']
    assert client.state() == 'inactive'
    assert client.transition('activate')
    client.wait_for_node()


def test_every_mask_is_that_of_the_frame_whose_stamp_it_has(client):
    images = [street(seed) for seed in range(6)]
    expected = [bytes(client.answer('~/mask', client.ask('~/mask', image)).data) for image in images]
    assert len(set(expected)) == len(images)
    client.forget()
    sent = {}
    for number in range(60):
        sent[client.send(images[number % 6])] = number % 6
        client.spin_for(0.01)
    client.wait(lambda: max(map(stamp_of, client.received['~/mask']), default=(0, 0)) == max(sent), 'the last mask')
    masks = [message for message in client.received['~/mask'] if stamp_of(message) in sent]
    assert len(masks) >= 6
    for message in masks:
        assert bytes(message.data) == expected[sent[stamp_of(message)]]


def test_a_backend_that_hangs_is_left_behind_and_the_node_can_be_configured_again(client, faulty):
    hung, start_s = [client.send(fault('hang'))], time.monotonic()
    client.spin_for(0.3)
    hung.append(client.send(fault('hang')))
    status = client.status('model', lambda s: s.level == DiagnosticStatus.ERROR)
    assert status.message.startswith('active: the backend hangs, an image has been at work for')
    assert 'model: active: the backend hangs' in faulty.output
    client.transition('deactivate')
    client.wait(lambda: client.state() == 'unconfigured', 'the unconfigured state')
    error = client.status('model', lambda s: s.level == DiagnosticStatus.ERROR)
    assert 'the backend hangs' in error.message
    client.wait(lambda: client.node.count_publishers(f'{NODE}/mask') == 0, 'the mask topic to go')
    assert client.transition('configure') and client.transition('activate')
    client.wait_for_node()
    client.status('model', lambda s: s.level == DiagnosticStatus.OK and s.message.startswith('active'))
    client.spin_for(max(0.0, start_s + HANG_S + QUIET_S - time.monotonic()))  # the backend has come back, too late
    assert not {stamp_of(mask) for mask in client.received['~/mask']} & set(hung)
