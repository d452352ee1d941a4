"""The ROS network of a command's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybrid_seg_ros.ros.play.node_process import own_network, reserve_domain


@pytest.mark.parametrize(('distro', 'variable'), [
    ('humble', 'FASTRTPS_DEFAULT_PROFILES_FILE'), ('kilted', 'FASTDDS_DEFAULT_PROFILES_FILE')
])  # fmt: skip
@pytest.mark.parametrize('outside', ['a profile of the user', None])
def test_children_inherit_it_and_it_ends(monkeypatch, distro, variable, outside):
    monkeypatch.setenv('ROS_DISTRO', distro)
    monkeypatch.delenv(variable, raising=False)
    if outside is not None:
        monkeypatch.setenv(variable, outside)
    before = dict(os.environ)
    with own_network():
        assert 1 <= int(os.environ['ROS_DOMAIN_ID']) <= 101
        assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
        assert '<segment_size>' in Path(os.environ[variable]).read_text()
    assert dict(os.environ) == before
    with pytest.raises(KeyError), own_network(shared_memory=False):
        assert variable not in os.environ
        raise KeyError
    assert dict(os.environ) == before


def test_a_domain_is_reserved_once_and_given_back():
    inside = [own_network(), own_network()]
    domains = set()
    for network in inside:
        network.__enter__()
        domains.add(os.environ['ROS_DOMAIN_ID'])
    for network in reversed(inside):
        network.__exit__(None, None, None)
    assert len(domains) == 2 and os.environ['ROS_DOMAIN_ID'] not in domains  # nor the one of these tests
    with own_network():
        assert os.environ['ROS_DOMAIN_ID'] in domains


def test_another_process_gets_another_domain_until_this_one_lets_go():
    unused = range(1001, 1004)  # no ids of real domains: the other tests need those
    program = f'from hybrid_seg_ros.ros.play.node_process import *; print(reserve_domain({unused!r}).domain_id)'

    def elsewhere():
        return subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)

    mine = [reserve_domain(unused) for _ in unused]
    assert {reservation.domain_id for reservation in mine} == set(unused)
    with pytest.raises(RuntimeError, match='all ROS domains from 1001 to 1003 are reserved'):
        reserve_domain(unused)
    assert elsewhere().returncode == 1
    freed = mine.pop()
    freed.release()
    assert elsewhere().stdout.strip() == str(freed.domain_id)
    assert reserve_domain(unused).domain_id == freed.domain_id  # the other process has ended
    for reservation in mine:
        reservation.release()
