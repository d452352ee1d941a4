"""How the demo of several cameras runs: each schedule with a node of its own, the same phases, one picture of both."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Optional

import numpy as np

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.node_watch import NODE, NodeWatch, node_command
from hybrid_seg_ros.ros.parameters import SCHEDULES
from hybrid_seg_ros.ros.session import RosSession
from hybrid_seg_ros.ros.trials.camera_stream import CameraStream, PlayedFrame, StreamPlayer
from hybrid_seg_ros.ros.trials.cameras_demo_report import CameraPhase, CamerasDemoOptions, CamerasReport, judge_camera
from hybrid_seg_ros.ros.trials.contact_sheet import SheetRow, draw_contact_sheet
from hybrid_seg_ros.visualization import draw_overlay, write_png

_CAMERAS = ('front', 'rear')
_PHASES = (('both', _CAMERAS), ('rear silent', _CAMERAS[:1]), ('both again', _CAMERAS))
_WAIT_S = 20.0
_LAST_S = 3.0
_WARM_UP_S = 1.0
_OVERLAY_ALPHA = 0.5


def run_cameras_demo(options: CamerasDemoOptions) -> CamerasReport:
    """Run the demo in the ROS network of the environment. Raises NodeError or BagError."""
    spec = ModelSpec.load(resolve_model_path(str(options.model or '')))
    options.output.mkdir(parents=True, exist_ok=True)
    with BagReader(options.bag or resolve_model_path('package://hybrid_seg_ros/bags/camvid_val')) as bag:
        show = _Show(options, spec, Drive(bag, options.topic, options.label_topic, options.limit))
        rows = [row for schedule in SCHEDULES for row in show(schedule)]
        sheet = draw_contact_sheet(show.sheet_rows, spec.classes, f'segmentation_node {show.model}', with_tokens=False)
    path = options.output / 'cameras.png'
    write_png(path, sheet)
    return CamerasReport(show.model, options.rate_hz, tuple(rows), str(path))


class _Show:
    """Plays all phases to a node per schedule, and keeps a picture of each phase."""

    def __init__(self, options: CamerasDemoOptions, spec: ModelSpec, drive: Drive) -> None:
        self._options, self._spec, self._drive = options, spec, drive
        self.model = ''
        self.sheet_rows: list[SheetRow] = []

    def __call__(self, schedule: str) -> list[CameraPhase]:
        """Start a node with this schedule, play, end it."""
        options = self._options
        parameters = {
            'image_transport': 'compressed' if self._drive.is_compressed else 'raw',
            **({'model_path': str(options.model)} if options.model else {}),
            **options.parameters,
            'cameras': f'[{", ".join(_CAMERAS)}]',
            'schedule': schedule,
        }
        command = node_command('image', parameters)
        process = ChildProcess(command, options.output / f'node_{schedule}.log', os.environ)
        with process, RosSession('hybrid_seg_demo') as session:
            node = NodeWatch(session, process)
            streams = {
                name: CameraStream(
                    session, self._drive, len(self._spec.classes), f'/{name}/image', f'{NODE}/{name}',
                    first=index * len(self._drive.stamps_ns) // len(_CAMERAS),
                )
                for index, name in enumerate(_CAMERAS)
            }  # fmt: skip
            print(f'{schedule}: starting segmentation_node with {self._spec.name}', flush=True)
            node.wait_until_active(options.start_s)
            for name, stream in streams.items():
                if not stream.wait_for_node(_WAIT_S):
                    raise node.error(f'segmentation_node does not listen to the camera {name}')
            self.model = node.model
            player = StreamPlayer(session, options.rate_hz, node.check_alive)
            player.play(list(streams.values()), _WARM_UP_S)
            return [
                row
                for phase, talking in _PHASES
                for row in self._play(schedule, phase, streams, talking, player, node)
            ]

    def _play(
        self, schedule: str, phase: str, streams: dict[str, CameraStream], talking: Sequence[str],
        player: StreamPlayer, node: NodeWatch,
    ) -> list[CameraPhase]:  # fmt: skip
        print(f'{schedule}: {phase}, {self._options.phase_s:g} s', flush=True)
        before = {name: len(stream.frames) for name, stream in streams.items()}
        last: dict[str, tuple[PlayedFrame, np.ndarray]] = {}
        for name, stream in streams.items():
            stream.rewind()
            stream.on_mask = lambda frame, labels, name=name: last.update({name: (frame, labels)})
        start_s = time.monotonic()
        player.play([streams[name] for name in talking], self._options.phase_s)
        duration_s = time.monotonic() - start_s
        player.await_stragglers([streams[name] for name in talking], _LAST_S)
        rows = [
            judge_camera(schedule, phase, name, stream.frames[before[name] :], duration_s)
            for name, stream in streams.items()
        ]
        for row in rows:
            if row.sent and not row.answered:
                raise node.error(f'no masks came for {row.sent} frames of the camera {row.camera} ({phase})')
        pictures: dict[str, Optional[np.ndarray]] = {}
        for name, stream in streams.items():
            image = overlay = None
            if name in talking:
                frame, labels = last[name]
                image = stream.picture(frame.index)
                overlay = draw_overlay(image, labels, self._spec.classes, _OVERLAY_ALPHA)
            pictures.update({name: image, f'{name}, mask': overlay})
        self.sheet_rows.append(SheetRow(f'{schedule}: {phase}', pictures))
        return rows
