"""Publish the frames of a bag on DDS, on time or one by one as they are answered."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from typing import Optional

from rclpy.duration import Duration
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from hybrid_seg_ros.ros.bags.bag_content import (
    COMPRESSED_IMAGE,
    NANOSECONDS,
    BagError,
    BagMessage,
    BagTopic,
    read_stamp_ns,
    replace_stamp,
)
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.play.replay_options import ReplayError, ReplayOptions, ReplayReport
from hybrid_seg_ros.ros.play.session import RosSession
from hybrid_seg_ros.ros.qos import matching_qos, reliable_qos

_QUEUE, _ANSWERS_QUEUE = 10, 50
_SETTLE_S = 0.5
"""A publisher counts a subscriber before that one listens; what a best-effort one gets in between is lost."""
_LAST_FRAMES = Duration(seconds=2)
"""How long reliable subscribers have to fetch the last frames before the publisher is gone."""
_PATIENCE_S = 1.0
_MISSES_IN_A_ROW = 3
_LARGE_BYTES = 500_000
"""Best-effort messages above the 512 KB of Fast DDS's default shared memory get lost."""

_logger = logging.getLogger(__name__)


def play_bag(bag: BagReader, session: RosSession, options: ReplayOptions) -> ReplayReport:
    """Play an open bag. Raises BagError if there is no image to send, or ReplayError."""
    cameras = _cameras_to_play(bag, options)
    topics = cameras + [topic for topic in bag.label_topics if options.labels and topic not in cameras]
    publishers = _publishers(session, topics, options)
    answers = _wait_for_partners(session, publishers[cameras[0].name], options)
    frames = _frames(bag, topics, cameras, options)
    sent = misses = 0
    first_s = last_s = start = time.monotonic()
    for due_s, message in _schedule(frames, options):
        if not due_s:  # of the first: reading it may have taken a while
            start = time.monotonic()
        if not options.lock_step:
            session.spin_for(start + due_s - time.monotonic())
        stamp_ns, cdr = message.stamp_ns, message.cdr
        if options.restamp:
            stamp_ns = time.time_ns()
            cdr = replace_stamp(cdr, stamp_ns)
        if message.topic not in cameras:
            publishers[message.topic.name].publish(cdr)
            continue
        if answers is not None:
            answers.ask(stamp_ns)
        publishers[message.topic.name].publish(cdr)
        last_s = time.monotonic()
        first_s = first_s if sent else last_s
        sent += 1
        if options.lock_step:
            answered = session.spin_until(lambda stamp_ns=stamp_ns: answers.is_answered(stamp_ns), options.timeout_s)
            misses = 0 if answered else misses + 1
            if misses == _MISSES_IN_A_ROW:
                raise ReplayError(_no_answer(options, len(cdr)))
    if answers is not None and not options.lock_step:
        _await_stragglers(session, answers, sent, options.timeout_s)
    duration_s = time.monotonic() - start
    for publisher in publishers.values():
        publisher.wait_for_all_acked(_LAST_FRAMES)
    report = ReplayReport(
        sent, duration_s, sent_hz=(sent - 1) / (last_s - first_s) if last_s > first_s else None, damage=bag.damage
    )
    if answers is None:
        return report
    return dataclasses.replace(
        report, answered=answers.count, answers_hz=answers.answers_hz, latencies_ms=answers.latencies_ms,
        answered_stamps_ns=answers.stamps_ns,
    )  # fmt: skip


def _cameras_to_play(bag: BagReader, options: ReplayOptions) -> list[BagTopic]:
    """Return the topics whose messages count as frames; a single one where answers are awaited."""
    if options.topics:
        topics = [bag.select_camera_topic(name) for name in options.topics]
    elif options.answer_topic or not bag.camera_topics:
        topics = [bag.select_camera_topic()]
    else:
        topics = list(bag.camera_topics)
    if options.answer_topic and len(topics) > 1:
        raise ReplayError(f'answers are awaited for one topic, got {len(topics)}: {", ".join(options.topics)}')
    return topics


def _publishers(session: RosSession, topics: list[BagTopic], options: ReplayOptions) -> dict[str, Publisher]:
    unknown = sorted(set(options.remap) - {topic.name for topic in topics})
    if unknown:
        raise ReplayError(f'remap: {unknown} are not played; played are {[topic.name for topic in topics]}')
    return {
        topic.name: session.node.create_publisher(
            CompressedImage if topic.msgtype == COMPRESSED_IMAGE else Image,
            options.remap.get(topic.name, topic.name),
            reliable_qos(_QUEUE),
        )
        for topic in topics
    }


def _wait_for_partners(session: RosSession, first: Publisher, options: ReplayOptions) -> Optional[AnswerWatch]:
    """Wait for whoever listens and whoever answers."""
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    if options.wait_s > 0 and not session.spin_until(lambda: first.get_subscription_count() > 0, options.wait_s):
        raise ReplayError(
            f'no subscriber on {first.topic_name} within {options.wait_s:g} s (ROS_DOMAIN_ID {domain}); '
            'is the node running and its image topic remapped to this one? --remap FROM:=TO plays on another topic, '
            '--wait 0 plays to nobody'
        )
    topic = options.answer_topic
    if topic is None:
        answers = None
    else:
        if not session.spin_until(lambda: session.node.count_publishers(topic) > 0, max(options.wait_s, _SETTLE_S)):
            raise ReplayError(
                f'nobody publishes {topic} (ROS_DOMAIN_ID {domain}); is the node active? '
                '--answer-topic NAME takes answers from another topic'
            )
        answers = AnswerWatch(session, topic)
    session.spin_for(_SETTLE_S)
    return answers


def _frames(
    bag: BagReader, topics: list[BagTopic], cameras: list[BagTopic], options: ReplayOptions
) -> Iterator[BagMessage]:
    """Yield the messages to play, again and again if asked to, with a progress bar that counts frames."""
    count = sum(topic.count for topic in cameras)
    total = options.limit if options.loop else min(count, options.limit or count)
    played = 0
    with tqdm(total=total, desc='replay', unit='frame', disable=None) as bar:
        while True:
            for message in bag.messages(topics):
                if message.topic in cameras:
                    if played == options.limit:
                        return
                    played += 1
                    bar.update()
                yield message
            if not played:
                held = ', '.join(map(str, bag.topics))
                raise BagError(f'bag {bag.path}: no image could be sent ({bag.damage}); it holds {held}')
            if not options.loop:
                return


def _schedule(frames: Iterator[BagMessage], options: ReplayOptions) -> Iterator[tuple[float, BagMessage]]:
    """Yield (seconds after the start, message): recorded gaps, shortened if they are longer than `max_gap_s`, by rate.

    A new round starts one gap later.
    """
    due_s, previous_ns, gap_s, is_said = 0.0, None, 0.0, options.lock_step
    for message in frames:
        if previous_ns is not None:
            if message.log_ns >= previous_ns:
                recorded_s = (message.log_ns - previous_ns) / NANOSECONDS
                gap_s = min(recorded_s, options.max_gap_s) / options.rate
                if recorded_s > options.max_gap_s and not is_said:
                    _logger.warning(
                        'a gap of %.1f s in the recording, at %.3f s of %s, is shortened to %g s, as will be others; '
                        '--max-gap says otherwise', recorded_s, message.log_ns / NANOSECONDS, message.topic.name,
                        options.max_gap_s,
                    )  # fmt: skip
                    is_said = True
            due_s += gap_s  # time runs backwards only where the bag begins anew: keep the last gap
        previous_ns = message.log_ns
        yield due_s, message


def _await_stragglers(session: RosSession, answers: AnswerWatch, sent: int, timeout_s: float) -> None:
    """Wait until all is answered, or for longer than answers took so far: dropped frames never get one."""
    before = -1
    while answers.count != before and answers.count < sent:
        before = answers.count
        patience_s = max(_PATIENCE_S, 3e-3 * max(answers.latencies_ms)) if before else timeout_s
        session.spin_until(lambda before=before: answers.count > before, min(patience_s, timeout_s))


def _no_answer(options: ReplayOptions, size: int) -> str:
    text = f'{_MISSES_IN_A_ROW} frames in a row got no answer on {options.answer_topic} within {options.timeout_s:g} s'
    if size > _LARGE_BYTES:
        text += (
            f'; at {size / 1e6:.1f} MB a frame, best-effort subscribers lose them unless both sides run with '
            'FASTDDS_DEFAULT_PROFILES_FILE=config/fastdds_shm.xml'
        )
    return text


class AnswerWatch:
    """Pairs masks with frames by header stamp, which a segmentation node copies from the image to the mask."""

    def __init__(self, session: RosSession, topic: str) -> None:
        """Subscribe to `topic`, whose publisher must be there already: its QoS decides ours."""
        self._asked_ns: dict[int, int] = {}
        self._latency_ms: dict[int, float] = {}
        self._arrivals_ns: list[int] = []
        # raw: the stamp is all that is needed of a mask, so it is never deserialised
        session.node.create_subscription(
            Image, topic, self._on_answer, matching_qos(session.node, topic, _ANSWERS_QUEUE), raw=True
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
