"""Node processes for the tests of this folder."""

from __future__ import annotations

import signal

import pytest
from node_harness import NodeProcess


@pytest.fixture
def start_node(tmp_path):
    """Start a node that takes its images from /camera/image, stop it after the test."""
    nodes = []

    def start(*remaps, **parameters):
        log = tmp_path / f'node_{len(nodes)}.log'
        nodes.append(NodeProcess(log, *remaps, 'image:=/camera/image', **parameters))  # the first rule wins
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop(signal.SIGKILL)
