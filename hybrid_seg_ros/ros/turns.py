"""Whose turn it is: which cameras' newest frames are segmented next, one by one or several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from hybrid_seg_ros.inference.work_thread import WorkThread

if TYPE_CHECKING:
    from hybrid_seg_ros.ros.camera import Camera

Serve = Callable[[Sequence['Camera']], None]


class Schedule(Protocol):
    """Decides when cameras are served, on the worker's thread."""

    def request(self, camera: Camera) -> None:
        """Note that the camera's slot, which was empty, has a frame. Does not wait."""

    def wake(self) -> None:
        """Look again whether there is anything to wait for: cameras have stopped."""


class Turns:
    """One camera at a time, first come first served.

    A camera asks for its turn only when its slot was empty, so at most one turn of each waits: a fast camera cannot
    crowd out the others, and what is segmented is each one's newest frame.
    """

    def __init__(self, thread: WorkThread, serve: Serve) -> None:
        self._thread, self._serve = thread, serve

    def request(self, camera: Camera) -> None:
        """Queue the camera's turn."""
        self._thread.submit(lambda: self._serve([camera]))

    def wake(self) -> None:
        """Nothing waits."""


class Batches:
    """All cameras at once. The first frame of a batch waits for the others at most `wait_s` seconds.

    Only cameras for which `is_live` holds are waited for: one that is silent holds nobody up.
    """

    def __init__(
        self, thread: WorkThread, serve: Serve, cameras: Sequence[Camera], is_live: Callable[[Camera], bool],
        wait_s: float,
    ) -> None:  # fmt: skip
        self._thread, self._serve = thread, serve
        self._cameras, self._is_live, self._wait_s = cameras, is_live, wait_s
        self._changed = threading.Condition()
        self._waiting: list[Camera] = []
        self._is_collecting = False

    def request(self, camera: Camera) -> None:
        """Let the camera take part in the next batch."""
        with self._changed:
            self._waiting.append(camera)
            if self._is_collecting:
                self._changed.notify()
                return
            self._is_collecting = True
        self._thread.submit(self._collect)

    def wake(self) -> None:
        """Wait no more for cameras that are no longer live."""
        with self._changed:
            self._changed.notify()

    def _collect(self) -> None:
        with self._changed:
            self._changed.wait_for(self._is_complete, self._wait_s)
            cameras, self._waiting = self._waiting, []
            self._is_collecting = False
        # always in the same order
        self._serve(sorted(cameras, key=self._cameras.index))

    def _is_complete(self) -> bool:
        return all(camera in self._waiting for camera in self._cameras if self._is_live(camera))


def make_schedule(
    name: str, thread: WorkThread, serve: Serve, cameras: Sequence[Camera], wait_s: float
) -> Schedule:
    """Return the schedule of this name. A single camera has nobody to wait for."""
    if name == 'batch' and len(cameras) > 1:
        return Batches(thread, serve, cameras, lambda camera: camera.is_live, wait_s)
    return Turns(thread, serve)
