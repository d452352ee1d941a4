"""A latency budget in the real node, over DDS: the table decides what runs, diagnostics say so."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import Client, active_node, street, values_of
from sensor_msgs.msg import Image
from std_msgs.msg import Int32MultiArray
from tiny_model import write_tiny_model, write_tiny_points


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    """Start a node whose model has a table."""
    folder = tmp_path_factory.mktemp('model')
    model = write_tiny_model(folder)
    write_tiny_points(model)
    with active_node(folder, model_path=model) as node:
        yield node


@pytest.fixture(scope='module')
def client(node):
    with Client() as client:
        client.wait_for_node()
        client.listen('~/mask', Image)
        yield client


def status_while_sending(client, condition):
    """Return the status on the operating point that meets the condition, while images come."""
    found = []

    def is_there():
        client.send(street())
        client.spin_for(0.02)
        for array in client.received['/diagnostics']:
            found.extend(s for s in array.status if s.name.endswith(': operating point') and condition(s))
        client.received['/diagnostics'].clear()
        return found

    client.wait(is_there, 'the operating point')
    return found[-1]


def test_without_a_target_the_parameters_decide(client):
    status = status_while_sending(client, lambda s: True)
    assert status.message == 'hybrid@6+8 threshold 0.3 merged 0.40234375: as set, without a latency budget'


def test_ample_time_runs_the_most_accurate_point_and_too_little_the_cheapest(client):
    usage = client.listen('~/token_usage', Int32MultiArray)
    assert client.set_parameter('target_latency_ms', 1000.0).successful
    values = values_of(status_while_sending(
        client, lambda s: s.message.startswith('dense') and float(values_of(s)['p95_of_target']) > 0
    ))  # fmt: skip
    assert (values['target'], values['position'], values['miou']) == ('1000 ms', '3 of 3', '70.00')
    assert 0 < float(values['p95_of_target']) < 1
    usage.clear()
    client.ask('~/mask')
    client.wait(lambda: usage, 'token usage')
    assert list(usage[-1].data) == [48, 48]

    assert client.set_parameter('target_latency_ms', 0.01).successful
    missed = status_while_sending(client, lambda s: s.level == DiagnosticStatus.WARN)
    assert missed.message.startswith('the target of 0.01 ms is missed, even at the cheapest point; hybrid@8 keep 0.3')
    assert int(values_of(missed)['changes']) >= 1

    assert client.set_parameter('target_latency_ms', 5000.0).successful
    back = status_while_sending(client, lambda s: s.message.startswith('dense'))
    assert 'there is room' in back.message and back.level == DiagnosticStatus.OK


def test_a_rate_is_a_budget_too_and_both_go_away(client):
    assert client.set_parameter('target_latency_ms', 0.0).successful
    assert client.set_parameter('target_fps', 0.5).successful
    assert values_of(status_while_sending(client, lambda s: s.message.startswith('dense')))['target'] == '0.5 FPS'
    assert client.set_parameter('target_fps', 0.0).successful
    status_while_sending(client, lambda s: s.message.endswith('as set, without a latency budget'))


def test_parameters_of_one_request_are_judged_together(client):
    assert not client.set_parameters_atomically({'variant': 'dtop@7', 'keep': 0.5}).successful
    result = client.set_parameters_atomically({'variant': 'hybrid@8', 'keep': 0.5, 'overlay_alpha': 0.2})
    assert result.successful, result.reason
    status_while_sending(client, lambda s: s.message.startswith('hybrid@8 keep 0.5'))
    assert client.set_parameters_atomically({'variant': '', 'keep': -1.0, 'overlay_alpha': 0.5}).successful


def test_without_a_table_a_target_is_refused_and_a_table_that_is_named_must_be_there(node, client, tmp_path):
    assert client.restart(model_path=str(write_tiny_model(tmp_path)))
    result = client.set_parameter('target_latency_ms', 50.0)
    assert not result.successful
    assert 'needs operating points' in result.reason and 'choose-points' in result.reason
    assert client.set_parameter('overlay_alpha', 0.3).successful
    for parameters, reason in (
        ({'target_latency_ms': 50.0}, 'a target of 50 ms needs operating points'),
        ({'target_latency_ms': 0.0, 'operating_points': '/nowhere.yaml'},
         'operating points /nowhere.yaml: no such file'),
    ):  # fmt: skip
        assert not client.restart(**parameters)
        assert f'on_configure failed: {reason}' in node.output
    assert client.state() == 'unconfigured', 'where a signal ends it in order, too'
