"""A ROS network of a command's own: other nodes on the machine neither hear it nor disturb it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Optional

from hybrid_seg_ros.ros.model_path import resolve_model_path

DOMAINS = range(1, 102)
"""ROS domain ids that may be taken; above 101 their ports could be ephemeral ones on Linux."""

SHARED_MEMORY_PROFILE = 'package://hybrid_seg_ros/config/fastdds_shm.xml'


@contextmanager
def own_network(shared_memory: bool = True) -> Iterator[None]:
    """Keep this process, and the children that it starts meanwhile, to themselves, by their environment.

    `shared_memory` gives camera images room there; without it Fast DDS is as it comes, whatever the environment says.
    """
    # Fast DDS renamed its variable after Humble, and warns of the old one
    vendor = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'humble' else 'FASTDDS'
    profile = str(resolve_model_path(SHARED_MEMORY_PROFILE)) if shared_memory else None
    reservation = reserve_domain()
    settings = {
        'ROS_DOMAIN_ID': str(reservation.domain_id),
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
        reservation.release()


class DomainReservation:
    """A ROS domain id that no other process has reserved, until it is released or this process ends."""

    def __init__(self, domain_id: int, lock: socket.socket) -> None:
        self.domain_id, self._lock = domain_id, lock

    def release(self) -> None:
        """Let others have the domain."""
        self._lock.close()


def reserve_domain(domains: Sequence[int] = DOMAINS) -> DomainReservation:
    """Reserve one of `domains`. Raises RuntimeError if all are.

    A reservation is the name of a Unix socket outside of the file system: the kernel frees it with the process. Nodes
    that somebody started with ROS_DOMAIN_ID are not seen.
    """
    first = os.getpid() % len(domains)
    for domain_id in (*domains[first:], *domains[:first]):
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f'\0hybrid_seg_ros/domain/{domain_id}')
        except OSError:
            lock.close()
        else:
            return DomainReservation(domain_id, lock)
    raise RuntimeError(f'all ROS domains from {domains[0]} to {domains[-1]} are reserved by other commands')


def _set(variables: Mapping[str, Optional[str]]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
