"""The demo of several cameras: two of them share one node, one falls silent for a while, the other goes on."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from played_camera import DriveCamera, miou_of, percentile_ms, play
from tool import positive, run_tool

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.backends import AUTO
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.bags.drive import Drive, opened_drive
from hybrid_seg_ros.ros.parameters import SCHEDULES
from hybrid_seg_ros.ros.play.demo import add_drive_arguments
from hybrid_seg_ros.ros.play.demo_pictures import SheetRow, draw_contact_sheet
from hybrid_seg_ros.ros.play.node_process import NODE, parse_parameter
from hybrid_seg_ros.ros.play.running_node import RunningNode, drive_parameters, running_node
from hybrid_seg_ros.visualization import draw_overlay, write_png

_CAMERAS = ('front', 'rear')
_PHASES = (('both', _CAMERAS), ('rear silent', _CAMERAS[:1]), ('both again', _CAMERAS))
_START_S, _WARM_UP_S, _LAST_S = 300.0, 1.0, 3.0
_OVERLAY_ALPHA = 0.5


@dataclass(frozen=True)
class CameraPhase:
    """A phase of one camera. Latency is from an image's publication to the arrival of its mask in another process."""

    schedule: str
    phase: str
    camera: str
    sent: int
    answered: int
    fps: float
    p50_ms: float
    p95_ms: float
    miou: Optional[float]

    def __str__(self) -> str:
        head = f'{self.schedule:10}{self.phase:14}{self.camera:8}{self.sent:6d}'
        if not self.sent:
            return f'{head}{"silent":>10}'
        miou = '-' if self.miou is None else f'{self.miou:.1f} %'
        return f'{head}{self.answered:10d}{self.fps:9.1f}{self.p50_ms:5.0f} ms{self.p95_ms:5.0f} ms{miou:>8}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_drive_arguments(parser, Path('out/demo_cameras'))
    parser.add_argument('--rate', type=positive, default=5.0, metavar='HZ', help='of each (%(default)s)')
    parser.add_argument('--phase', type=positive, default=10.0, metavar='S',
                        help='seconds with both cameras, with the front one only, with both again (%(default)s each)')
    parser.add_argument('--backend', default=AUTO, help='backend of the node (%(default)s: the fastest here)')


def run(args: argparse.Namespace) -> int:
    """Play all phases to a node for each schedule; write figures, and a picture of each phase."""
    given = {'backend': args.backend, **dict(map(parse_parameter, args.param))}
    spec = ModelSpec.load(args.model or '')
    args.output.mkdir(parents=True, exist_ok=True)
    rows, pictures = [], []
    with opened_drive(args.bag, args.topic, args.label_topic, args.limit) as drive:
        for schedule in SCHEDULES:
            cameras = {'cameras': f'[{", ".join(_CAMERAS)}]', 'schedule': schedule}
            parameters = {**drive_parameters(drive, args.model, given), **cameras}
            print(f'{schedule}: starting segmentation_node with {spec.name}', flush=True)
            with running_node(parameters, args.output / f'node_{schedule}.log', _START_S, 'image') as node:
                _play_phases(node, schedule, args, spec, drive, rows, pictures)
    sheet = args.output / 'cameras.png'
    write_png(sheet, draw_contact_sheet(pictures, spec.classes, f'segmentation_node {node.model}', with_tokens=False))
    write_json(args.output / 'report.json', {
        'node': node.model, 'rate_hz': args.rate, 'rows': [dataclasses.asdict(row) for row in rows],
    })  # fmt: skip
    print(f'node     {node.model}')
    print(f'cameras  front and rear, {args.rate:g} Hz each, half the drive apart, over DDS; one model for both')
    print(f'{"schedule":10}{"phase":14}{"camera":8}{"sent":>6}{"answered":>10}{"masks/s":>9}{"p50":>8}{"p95":>8}'
          f'{"mIoU":>8}')  # fmt: skip
    print(*rows, f'written  {sheet}', sep='\n')
    return 0


def _play_phases(
    node: RunningNode, schedule: str, args: argparse.Namespace, spec: ModelSpec, drive: Drive, rows: list[CameraPhase],
    pictures: list[SheetRow],
) -> None:  # fmt: skip
    """Add a row for each phase and camera, and a row of pictures for each phase. Raises NodeError."""
    cameras = {
        name: DriveCamera(node, drive, len(spec.classes), f'/{name}/image', f'{NODE}/{name}',
                          first=index * len(drive.stamps_ns) // len(_CAMERAS))
        for index, name in enumerate(_CAMERAS)
    }  # fmt: skip
    play(node, list(cameras.values()), args.rate, min(_WARM_UP_S, args.phase))
    for phase, names in _PHASES:
        print(f'{schedule}: {phase}, {args.phase:g} s', flush=True)
        before = {name: len(camera.frames) for name, camera in cameras.items()}
        talking = [cameras[name] for name in names]
        for camera in cameras.values():
            camera.rewind()
        start_s = time.monotonic()
        play(node, talking, args.rate, args.phase)
        duration_s = time.monotonic() - start_s
        row: dict[str, object] = {}
        for name, camera in cameras.items():
            image = overlay = None
            if camera in talking:
                camera.await_last(_LAST_S)
            frames = camera.frames[before[name] :]
            answered = sum(frame.is_answered for frame in frames)
            rows.append(CameraPhase(
                schedule, phase, name, len(frames), answered, answered / duration_s, percentile_ms(frames, 50),
                percentile_ms(frames, 95), miou_of(frames),
            ))  # fmt: skip
            if frames and not answered:
                raise node.error(f'no masks came for {len(frames)} frames of the camera {name} ({phase})')
            if frames:
                frame, labels = camera.last
                image = camera.picture(frame)
                overlay = draw_overlay(image, labels, spec.classes, _OVERLAY_ALPHA)
            row.update({name: image, f'{name}, mask': overlay})
        pictures.append(SheetRow(f'{schedule}: {phase}', row))


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
