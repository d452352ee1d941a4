"""How the demo runs: start the node, play the drive twice, watch, draw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.node_watch import NODE, NodeWatch, node_command
from hybrid_seg_ros.ros.replay_process import run_replay
from hybrid_seg_ros.ros.session import RosSession
from hybrid_seg_ros.ros.trials.contact_sheet import SheetRow, draw_contact_sheet
from hybrid_seg_ros.ros.trials.demo_observer import DemoObserver, Score
from hybrid_seg_ros.ros.trials.demo_options import DemoError, DemoOptions, DemoReport, PhaseReport
from hybrid_seg_ros.ros.trials.video import Video
from hybrid_seg_ros.visualization import write_png

_IMAGE = '/camera/image'
_SHEET_ROWS = 5
_LAST_VIEWS_S = 5.0
_VIDEO_WIDTH = 720
"""Encoding takes a good part of the demo's time, and grows with the pixels."""
_VIDEO_HZ = 10.0
"""Of a drive whose recording times say no rate."""


def run_demo(options: DemoOptions) -> DemoReport:
    """Run the demo in the ROS network of the environment. Raises DemoError, NodeError or BagError."""
    spec = ModelSpec.load(resolve_model_path(str(options.model or '')))
    with BagReader(options.bag or resolve_model_path('package://hybrid_seg_ros/bags/camvid_val')) as bag:
        drive = Drive(bag, options.topic, options.label_topic, options.limit)
        command, log = _node_command(options, drive), _log_folder(options) / 'node.log'
        with ChildProcess(command, log, os.environ) as node, RosSession('hybrid_seg_demo') as session:
            watch, observer = NodeWatch(session, node), DemoObserver(session, NODE)
            print(f'starting segmentation_node with {spec.name}, {options.variant or spec.variant}', flush=True)
            watch.wait_until_active(options.start_s)
            play = _Player(session, observer, watch, drive, options)
            real_time = play('real-time', _new_score(drive, spec), '--rate', str(options.rate))
            album = _Album(drive)
            observer.watch_views(album.add)
            lock_step = play('lock-step', _new_score(drive, spec), '--lock-step')
            tokens = observer.tokens_mean
            session.spin_until(lambda: album.count >= lock_step.answered, _LAST_VIEWS_S)
        model = watch.model or 'that sent no diagnostics'
        sheet = options.output / 'contact_sheet.png'
        write_png(sheet, draw_contact_sheet(album.rows(spec), spec.classes, f'segmentation_node {model}'))
        video = options.output / 'overlay.mp4'
        album.write_video(video)
        files = tuple(map(str, (video, sheet)))
        name = str(options.bag or bag.path.name)
        return DemoReport(name, options.rate * drive.rate_hz, model, real_time, lock_step, tokens, files)


class _Album:
    """Takes the pictures: all for the video, a few of them, spread over the drive, for the contact sheet."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        picks = np.linspace(0, len(drive.stamps_ns) - 1, min(_SHEET_ROWS, len(drive.stamps_ns))).round().astype(int)
        self._picks = [drive.stamps_ns[index] for index in picks]
        self._kept: dict[int, dict[str, np.ndarray]] = {}
        # As JPEG until all have come: encoding the video on the way would hold up the callbacks, and views get lost.
        self._frames: list[np.ndarray] = []

    @property
    def count(self) -> int:
        """Number of frames whose views came."""
        return len(self._frames)

    def add(self, stamp_ns: int, views: dict[str, np.ndarray]) -> None:
        """Take the views of one frame."""
        picture = np.hstack([views['overlay'], views['token_map']])
        scale = min(1.0, _VIDEO_WIDTH / picture.shape[1])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._frames.append(cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
        if stamp_ns in self._picks:
            self._kept[stamp_ns] = views

    def write_video(self, path: Path) -> None:
        """Write overlay and token map, side by side, as a video at the rate of the drive."""
        with Video(path, self._drive.rate_hz or _VIDEO_HZ) as video:
            for frame in tqdm(self._frames, desc='video', unit='frame', disable=None):
                video.add(cv2.imdecode(frame, cv2.IMREAD_COLOR))  # written as RGB, so read as RGB

    def rows(self, spec: ModelSpec) -> list[SheetRow]:
        """Return the rows of the contact sheet. Raises DemoError if no pictures came."""
        if not self._kept:
            raise DemoError(f'no pictures came from {NODE}')
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


class _Player:
    """Plays the drive from a process of its own and reports."""

    def __init__(
        self, session: RosSession, observer: DemoObserver, watch: NodeWatch, drive: Drive, options: DemoOptions
    ) -> None:
        self._session, self._observer, self._watch = session, observer, watch
        self._drive, self._options = drive, options

    def __call__(self, phase: str, score: Optional[Score], *arguments: str) -> PhaseReport:
        """Play the drive once with further arguments to `hybrid_seg replay`."""
        print(f'playing {len(self._drive.stamps_ns)} frames: {phase}', flush=True)
        output = _log_folder(self._options) / f'replay_{phase}.json'
        self._observer.begin(score)
        played = run_replay(
            self._session, self._watch, self._drive, _IMAGE, output, self._options.timeout_s, *arguments
        )
        self._session.spin_until(lambda: self._observer.mask_count >= played.answered, 2.0)
        if not played.answered or not self._observer.mask_count:
            raise self._watch.error(f'no masks came for {played.sent} frames')
        return PhaseReport(
            sent=played.sent, answered=played.answered, fps=played.answers_hz, latency_p50_ms=played.percentile_ms(50),
            latency_p95_ms=played.percentile_ms(95), miou=score.miou if score is not None and score.frames else None,
            scored_frames=score.frames if score is not None else 0,
        )  # fmt: skip


def _new_score(drive: Drive, spec: ModelSpec) -> Optional[Score]:
    """Return an empty score; None without ground truth."""
    return None if drive.truth is None else Score(drive.truth, len(spec.classes))


def _log_folder(options: DemoOptions) -> Path:
    folder = options.output / 'logs'
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _node_command(options: DemoOptions, drive: Drive) -> list[str]:
    parameters = {
        **({'variant': options.variant} if options.variant else {}),
        'image_transport': 'compressed' if drive.is_compressed else 'raw',
        **({'model_path': str(options.model)} if options.model else {}),
        **options.parameters,
    }
    return node_command(_IMAGE, parameters)
