"""A segmentation node, or another program, as a child process of a command that ends it and whatever it started.

Both have a ROS network of their own: other nodes on the machine neither hear it nor disturb it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.model_path import resolve_model_path

NODE = '/segmentation_node'
SEGMENTATION_NODE = ('-m', 'hybrid_seg_ros.ros.segmentation_node')
"""What Python runs to be a node."""

DOMAINS = range(1, 102)
"""ROS domain ids that may be taken; above 101 their ports could be ephemeral ones on Linux."""

SHARED_MEMORY_PROFILE = 'package://hybrid_seg_ros/config/fastdds_shm.xml'

_GRACE_S = 5.0
_HELD = (signal.SIGINT, signal.SIGTERM)


class NodeError(RuntimeError):
    """A node that does not work, or a program that plays to it; the message holds the end of its log."""


class ChildProcess:
    """Runs a command; a context manager that ends it: by SIGINT, and by SIGKILL where that does not help.

    Its output goes to the file `log`; `shows_progress` leaves its stderr, where progress bars go, on the terminal. For
    the main thread only.
    """

    def __init__(self, command: Sequence[str], log: Path, shows_progress: bool = False) -> None:
        self._command, self.log, self._shows_progress = list(command), log, shows_progress

    def __enter__(self) -> ChildProcess:
        # A signal that raises inside Popen would leave a child that nobody knows: take it once the child is known.
        held: list[int] = []
        before = {number: signal.signal(number, lambda number, _: held.append(number)) for number in _HELD}
        try:
            self._process = self._start()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        try:
            for number in held:
                signal.raise_signal(number)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_status(self) -> Optional[int]:
        """Exit status; negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End the process and whatever it started."""
        if self.exit_status is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of its output."""
        return '\n'.join(self.log.read_text(encoding='utf-8', errors='replace').splitlines()[-lines:])

    def _start(self) -> subprocess.Popen:
        with self.log.open('wb') as stream:
            # a session of its own: Ctrl-C at the terminal reaches only us, and we end the child in order
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=None if self._shows_progress else subprocess.STDOUT,
                start_new_session=True,
            )


def node_command(
    image_topic: str, parameters: Mapping[str, Any], program: Sequence[str] = SEGMENTATION_NODE
) -> list[str]:
    """Return the command that runs the node, or another `program` of its kind."""
    command = [sys.executable, *program, '--ros-args', '-r', f'image:={image_topic}']
    return command + [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]


def parse_parameter(text: str) -> tuple[str, str]:
    """Read NAME:=VALUE, a parameter of the node. Raises ValueError for anything else."""
    name, separator, value = text.partition(':=')
    if not (name and separator and value):
        raise ValueError(f'param: expected NAME:=VALUE, got {text!r}')
    return name, value


def exit_in_order(number: int, _frame: Any) -> None:
    """Leave by an exception, so that the children are ended on the way: a signal handler."""
    sys.exit(128 + number)


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
    _set_environment(settings)
    try:
        yield
    finally:
        _set_environment(before)
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


def _set_environment(variables: Mapping[str, Optional[str]]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
