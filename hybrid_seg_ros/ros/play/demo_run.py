"""How the demo runs: start the node, play the drive twice, watch, draw, report."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from sensor_msgs.msg import Image
from tqdm import tqdm

from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.bags.drive import Drive, opened_drive
from hybrid_seg_ros.ros.image_decoding import image_to_rgb
from hybrid_seg_ros.ros.parameters import refuse_unknown_names
from hybrid_seg_ros.ros.play.demo_pictures import SheetRow, Video, draw_contact_sheet
from hybrid_seg_ros.ros.play.node_process import NODE, NodeError, parse_parameter
from hybrid_seg_ros.ros.play.running_node import NodeAnswers, RunningNode, drive_parameters, running_node, stamp_of
from hybrid_seg_ros.ros.play.session import RosSession
from hybrid_seg_ros.ros.qos import reliable_qos
from hybrid_seg_ros.visualization import write_png

_VIEWS = ('overlay', 'color_mask', 'token_map')
_START_S, _LAST_MASKS_S, _LAST_VIEWS_S = 120.0, 2.0, 5.0
_DEPTH = 50
_SHEET_ROWS = 5
_VIDEO_WIDTH = 720
"""Encoding takes a good part of the demo's time, and grows with the pixels."""
_VIDEO_HZ = 10.0
"""Of a drive whose recording times say no rate."""


@dataclass(frozen=True)
class PhaseReport:
    """One play of the drive. Latency is from publishing a frame to the arrival of its mask, in another process."""

    sent: int
    answered: int
    fps: float
    latency_p50_ms: float
    latency_p95_ms: float
    miou: Optional[float]
    scored_frames: int

    @property
    def dropped(self) -> int:
        """Frames without an answer."""
        return self.sent - self.answered

    @property
    def miou_text(self) -> str:
        """The mIoU in words."""
        return 'no ground truth' if self.miou is None else f'{self.miou:.1f} % over {self.scored_frames} frames'


@dataclass(frozen=True)
class DemoReport:
    """The two plays, the tokens per stage (mean), what runs, and the files written; a rate of 0 is all at once."""

    bag: str
    bag_rate_hz: float
    node: str
    real_time: PhaseReport
    lock_step: PhaseReport
    tokens_mean: dict[str, float]
    files: tuple[str, ...]

    def __str__(self) -> str:
        live, full = self.real_time, self.lock_step
        counts = [*self.tokens_mean.values()] or [float('nan')]
        stages = ' -> '.join(f'{count:.0f} {name}' for name, count in self.tokens_mean.items())
        rate = f'at {self.bag_rate_hz:.1f} Hz' if self.bag_rate_hz else 'all at once'
        lines = [
            f'node       {self.node}',
            f'bag        {self.bag}, another process, over DDS',
            f'real time  {live.sent} frames {rate}: {live.answered} answered, '
            f'{live.dropped} dropped (the newest frame wins)',
            f'           {live.fps:.1f} FPS, latency p50 {live.latency_p50_ms:.0f} ms, '
            f'p95 {live.latency_p95_ms:.0f} ms from image to mask',
            f'lock-step  {full.sent} frames, each one awaited: {full.answered} answered, {full.dropped} dropped',
            f'tokens     {stages} (mean per frame; {100 * counts[-1] / counts[0]:.0f} % reach the last layers)',
            f'mIoU       {full.miou_text}; in real time {live.miou_text}',
            f'written    {", ".join(self.files)}',
        ]
        return '\n'.join(lines)


def run_demo(args: argparse.Namespace) -> DemoReport:
    """Run the demo as the command's arguments say. Raises NodeError, BagError or ValueError."""
    spec = ModelSpec.load(args.model or '')
    variant = {'variant': args.variant} if args.variant else {}
    given = {'merge_by': 'auto', **variant, **dict(map(parse_parameter, args.param))}
    refuse_unknown_names(given)
    with opened_drive(args.bag, args.topic, args.label_topic, args.limit) as drive:
        parameters = drive_parameters(drive, args.model, given)
        logs = args.output / 'logs'
        logs.mkdir(parents=True, exist_ok=True)
        shown = given.get('variant') or spec.variant
        print(f'starting segmentation_node with {spec.name}, {shown}', flush=True)
        with running_node(parameters, logs / 'node.log', _START_S) as node:
            play = _Player(node, drive, spec, logs, args.timeout)
            real_time = play('real-time', '--rate', str(args.rate))
            album = _Album(node.session, drive)
            lock_step = play('lock-step', '--lock-step')
            tokens = play.tokens_mean()
            node.session.spin_until(lambda: album.count >= lock_step.answered, _LAST_VIEWS_S)
        model = node.model or 'that sent no diagnostics'
        sheet, video = args.output / 'contact_sheet.png', args.output / 'overlay.mp4'
        write_png(sheet, draw_contact_sheet(album.rows(spec), spec.classes, f'segmentation_node {model}'))
        album.write_video(video)
        return DemoReport(
            str(args.bag or drive.bag.path.name), args.rate * drive.rate_hz, model, real_time, lock_step, tokens,
            (str(video), str(sheet)),
        )  # fmt: skip


class _Player:
    """Plays the drive from a process of its own, scores the masks as they come, and reports."""

    def __init__(self, node: RunningNode, drive: Drive, spec: ModelSpec, logs: Path, timeout_s: float) -> None:
        self._node, self._drive, self._logs, self._timeout_s = node, drive, logs, timeout_s
        self._answers = NodeAnswers(node.session, self._score)
        self._matrix = ConfusionMatrix(len(spec.classes))
        self._scored: set[int] = set()

    def __call__(self, phase: str, *arguments: str) -> PhaseReport:
        """Play the drive once with further arguments to `hybrid_seg replay`."""
        print(f'playing {len(self._drive.stamps_ns)} frames: {phase}', flush=True)
        self._answers.forget()
        self._matrix.reset()
        self._scored.clear()
        played = self._node.play(self._drive, self._logs / f'replay_{phase}.json', self._timeout_s, *arguments)
        self._node.session.spin_until(lambda: self._answers.is_complete(played.answered), _LAST_MASKS_S)
        if not played.answered or not self._answers.arrivals_s:
            raise self._node.error(f'no masks came for {played.sent} frames')
        return PhaseReport(
            sent=played.sent, answered=played.answered, fps=played.answers_hz, latency_p50_ms=played.percentile_ms(50),
            latency_p95_ms=played.percentile_ms(95), miou=self._matrix.miou() if self._scored else None,
            scored_frames=len(self._scored),
        )  # fmt: skip

    def tokens_mean(self) -> dict[str, float]:
        """Return the mean token count per stage over the last play; empty if none came."""
        usages = self._answers.usages
        if not usages:
            return {}
        return dict(zip(usages[-1], np.mean([list(usage.values()) for usage in usages], axis=0).tolist()))

    def _score(self, stamp_ns: int, labels: np.ndarray) -> None:
        """Score a mask at the size of its ground truth; a frame counts once."""
        target = None if self._drive.truth is None else self._drive.truth.labels_at(stamp_ns)
        if target is not None and stamp_ns not in self._scored:
            self._matrix.update(cv2.resize(labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST), target)
            self._scored.add(stamp_ns)


class _Album:
    """Takes the pictures: all for the video, a few of them, spread over the drive, for the contact sheet.

    It subscribes to them, which makes the node draw them.
    """

    def __init__(self, session: RosSession, drive: Drive) -> None:
        self._drive = drive
        picks = np.linspace(0, len(drive.stamps_ns) - 1, min(_SHEET_ROWS, len(drive.stamps_ns))).round().astype(int)
        self._picks = [drive.stamps_ns[index] for index in picks]
        self._waiting: dict[int, dict[str, np.ndarray]] = {}
        self._kept: dict[int, dict[str, np.ndarray]] = {}
        # As JPEG until all have come: encoding the video on the way would hold up the callbacks, and views get lost.
        self._frames: list[np.ndarray] = []
        for name in _VIEWS:
            session.node.create_subscription(
                Image, f'{NODE}/{name}', lambda image, name=name: self._came(name, image), reliable_qos(_DEPTH)
            )

    @property
    def count(self) -> int:
        """Number of frames whose views came."""
        return len(self._frames)

    def write_video(self, path: Path) -> None:
        """Write overlay and token map, side by side, as a video at the rate of the drive."""
        with Video(path, self._drive.rate_hz or _VIDEO_HZ) as video:
            for frame in tqdm(self._frames, desc='video', unit='frame', disable=None):
                video.add(cv2.imdecode(frame, cv2.IMREAD_COLOR))  # written as RGB, so read as RGB

    def rows(self, spec: ModelSpec) -> list[SheetRow]:
        """Return the rows of the contact sheet. Raises NodeError if no pictures came."""
        if not self._kept:
            raise NodeError(f'no pictures came from {NODE}')
        images, start_ns = self._drive.images(set(self._kept)), self._drive.stamps_ns[0]
        rows = []
        for stamp_ns, views in sorted(self._kept.items()):
            pictures: dict[str, Optional[np.ndarray]] = {'camera': images[stamp_ns]}
            if self._drive.truth is not None:
                labels = self._drive.truth.labels_at(stamp_ns)
                pictures['ground truth'] = None if labels is None else spec.classes.colorize(labels)
            pictures.update({'mask': views['color_mask'], 'tokens': views['token_map']})
            rows.append(SheetRow(f't = {(stamp_ns - start_ns) / 1e9:.1f} s', pictures))
        return rows

    def _came(self, name: str, image: Image) -> None:
        """Put a frame's views together; they come one after the other, as drawn."""
        views = self._waiting.setdefault(stamp_of(image), {})
        views[name] = image_to_rgb(image)
        if len(views) == len(_VIEWS):
            self._add(stamp_of(image), self._waiting.pop(stamp_of(image)))

    def _add(self, stamp_ns: int, views: dict[str, np.ndarray]) -> None:
        picture = np.hstack([views['overlay'], views['token_map']])
        scale = min(1.0, _VIDEO_WIDTH / picture.shape[1])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._frames.append(cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
        if stamp_ns in self._picks:
            self._kept[stamp_ns] = views
