"""Watch a topic for the answers to published frames: which frame was answered, and after how long."""

from __future__ import annotations

import time

from sensor_msgs.msg import Image

from hybrid_seg_ros.ros.cdr_header import read_stamp_ns
from hybrid_seg_ros.ros.session import RosSession, matching_qos

_QUEUE = 50


class AnswerWatch:
    """Pairs masks with frames by header stamp, which a segmentation node copies from the image to the mask."""

    def __init__(self, session: RosSession, topic: str) -> None:
        """Subscribe to `topic`, whose publisher must be there already: its QoS decides ours."""
        self._asked_ns: dict[int, int] = {}
        self._latency_ms: dict[int, float] = {}
        self._arrivals_ns: list[int] = []
        # raw: the stamp is all that is needed of a mask, so it is never deserialised
        session.node.create_subscription(
            Image, topic, self._on_answer, matching_qos(session.node, topic, _QUEUE), raw=True
        )

    def ask(self, stamp_ns: int) -> None:
        """Note that the frame with this stamp is published now; a frame asked again waits for a new answer."""
        self._latency_ms.pop(stamp_ns, None)
        self._asked_ns[stamp_ns] = time.monotonic_ns()

    def is_answered(self, stamp_ns: int) -> bool:
        """Say whether the frame with this stamp has been answered."""
        return stamp_ns in self._latency_ms

    @property
    def latencies_ms(self) -> tuple[float, ...]:
        """Milliseconds from publishing to the mask's arrival, of each answered frame."""
        return tuple(self._latency_ms.values())

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Header stamps of the answered frames, in the order of `latencies_ms`."""
        return tuple(self._latency_ms)

    @property
    def answers_hz(self) -> float:
        """Rate of the answers between the first and the last; 0 for fewer than two."""
        if len(self._arrivals_ns) < 2:
            return 0.0
        return (len(self._arrivals_ns) - 1) * 1e9 / (self._arrivals_ns[-1] - self._arrivals_ns[0])

    @property
    def count(self) -> int:
        """Number of answers so far."""
        return len(self._arrivals_ns)

    def _on_answer(self, cdr: bytes) -> None:
        now_ns = time.monotonic_ns()
        stamp_ns = read_stamp_ns(cdr)
        asked_ns = self._asked_ns.get(stamp_ns)
        if asked_ns is None or stamp_ns in self._latency_ms:
            return  # somebody else's frame, or a second publisher of the same answer
        self._latency_ms[stamp_ns] = (now_ns - asked_ns) / 1e6
        self._arrivals_ns.append(now_ns)
