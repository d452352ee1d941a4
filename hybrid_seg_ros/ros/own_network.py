"""A ROS network of a command's own: other nodes on the machine neither hear it nor disturb it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Optional

from hybrid_seg_ros.ros.model_path import resolve_model_path

SHARED_MEMORY_PROFILE = 'package://hybrid_seg_ros/config/fastdds_shm.xml'


@contextmanager
def own_network(shared_memory: bool = True) -> Iterator[None]:
    """Keep this process, and the children that it starts meanwhile, to themselves, by their environment.

    `shared_memory` gives camera images room there; without it Fast DDS is as it comes, whatever the environment says.
    """
    # Fast DDS renamed its variable after Humble, and warns of the old one
    vendor = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'humble' else 'FASTDDS'
    profile = str(resolve_model_path(SHARED_MEMORY_PROFILE)) if shared_memory else None
    settings = {
        'ROS_DOMAIN_ID': str(1 + os.getpid() % 100),  # above 101, its ports could be taken on Linux
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        f'{vendor}_DEFAULT_PROFILES_FILE': profile,
        'PYTHONUNBUFFERED': '1',
    }
    if vendor == 'FASTRTPS':
        settings['ROS_LOCALHOST_ONLY'] = '1'  # Humble knows no discovery range
    before = {name: os.environ.get(name) for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, Optional[str]]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
