"""The SROS 2 policy allows what the running node publishes, subscribes to and serves, and nothing else.

Fast DDS comes from PyPI without its security plugins, so no permission is enforced here: the topics and services that
the node has in the ROS graph are compared with the policy.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import pytest
from node_harness import NODE, TIMEOUT_S, Client, active_node
from tiny_model import write_tiny_model

from hybrid_seg_ros.ros import publishers
from hybrid_seg_ros.ros.play.session import RosSession

POLICY = Path(__file__).parents[2] / 'config' / 'sros2' / 'segmentation_node.policy.xml'
CAMERA = '/camera/image_raw'
NAME = NODE.lstrip('/')
ATTRIBUTES = {
    ('topics', 'publish'): 'publisher', ('topics', 'subscribe'): 'subscriber',
    ('services', 'reply'): 'service', ('services', 'request'): 'client',
}  # fmt: skip
"""How the policy calls what ROS calls publisher, subscriber, service and client."""


def allowed() -> dict[str, set[str]]:
    """Return the full names that the policy allows, by what ROS calls it."""
    (profile,) = ElementTree.parse(POLICY).getroot().iter('profile')
    assert profile.attrib == {'ns': '/', 'node': NAME}
    names: dict[str, set[str]] = {kind: set() for kind in ATTRIBUTES.values()}
    for rules in profile:
        ((action, qualifier),) = rules.attrib.items()
        assert qualifier == 'ALLOW'
        listed = [rule.text for rule in rules]
        assert len(set(listed)) == len(listed)
        names[ATTRIBUTES[rules.tag, action]] |= {name.replace('~', NODE) for name in listed}
    return names


def graph_of(session: RosSession) -> dict[str, set[str]]:
    """Return the full names that the node has in the ROS graph."""
    return {
        kind: {name for name, _ in getattr(session.node, f'get_{kind}_names_and_types_by_node')(NAME, '/')}
        for kind in ATTRIBUTES.values()
    }


def graph_once_active(session: RosSession, topic: str) -> dict[str, set[str]]:
    """Return what the node has once it listens to the topic."""
    assert session.spin_until(lambda: NAME in session.node.get_node_names(), TIMEOUT_S)
    assert session.spin_until(lambda: topic in graph_of(session)['subscriber'], TIMEOUT_S)
    assert session.spin_until(lambda: f'{NODE}/set_parameters' in graph_of(session)['service'], TIMEOUT_S)
    session.spin_for(1.0)  # the graph grows one by one, and nothing says when it is complete
    return graph_of(session)


@pytest.fixture(scope='module')
def used(tmp_path_factory):
    """What the real node has, with either image transport."""
    folder = tmp_path_factory.mktemp('policy')
    with active_node(folder, f'image:={CAMERA}', model_path=write_tiny_model(folder)), Client() as client:
        raw = graph_once_active(client, CAMERA)
        assert client.restart(image_transport='compressed')
        compressed = graph_once_active(client, f'{CAMERA}/compressed')
    return {kind: raw[kind] | compressed[kind] for kind in ATTRIBUTES.values()}


@pytest.mark.parametrize('kind', ATTRIBUTES.values())
def test_all_that_the_node_has_is_allowed(used, kind):
    assert not used[kind] - allowed()[kind], 'config/sros2/segmentation_node.policy.xml does not allow these'


@pytest.mark.parametrize('kind', ATTRIBUTES.values())
def test_nothing_is_allowed_that_the_node_has_not(used, kind):
    elsewhere = set()
    if publishers.LabelInfo is None:  # vision_msgs is not on PyPI
        elsewhere.add(f'{NODE}/label_info')
    if importlib.util.find_spec('type_description_interfaces') is None:  # Humble
        elsewhere.add(f'{NODE}/get_type_description')
    assert not allowed()[kind] - used[kind] - elsewhere, 'config/sros2/segmentation_node.policy.xml allows too much'


def test_the_file_keeps_to_the_schema():
    """Policy schema 0.2.0 of sros2: policy, enclaves, enclave, profiles, profile, then topics and services."""
    policy = ElementTree.parse(POLICY).getroot()
    assert (policy.tag, policy.attrib) == ('policy', {'version': '0.2.0'})
    (enclaves,) = policy
    (enclave,) = enclaves
    (profiles,) = enclave
    assert (enclaves.tag, enclave.tag, profiles.tag) == ('enclaves', 'enclave', 'profiles')
    assert list(enclave.attrib) == ['path'] and enclave.get('path').startswith('/')
    for rules in profiles.find('profile'):
        assert {rule.tag for rule in rules} == {rules.tag.rstrip('s')}
        assert all(rule.text.startswith(('/', '~/')) for rule in rules)
