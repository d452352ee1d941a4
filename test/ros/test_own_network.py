"""The ROS network of a command's own."""

import os
from pathlib import Path

import pytest

from hybrid_seg_ros.ros.own_network import own_network


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
