"""`hybrid_seg segment`: segment image files into label maps and overlays."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
from tqdm import tqdm

from hybrid_seg_ros.inference.operating_point import add_operating_point_arguments, open_pipeline
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.inference.rgb_file import read_rgb
from hybrid_seg_ros.visualization import draw_overlay


def segment_images(pipeline: SegmentationPipeline, images: list[Path], output: Path, alpha: float = 0.5) -> list[Path]:
    """Write, for each image, NAME_labels.png (class ids, 255 = unlabelled) and NAME_overlay.png; return the latter.

    Raises FileNotFoundError, or ValueError that names an unreadable image, or two images of one name, before anything
    is written.
    """
    names = [path.stem for path in images]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f'images of the same name would overwrite each other: {", ".join(repeated)}')
    missing = [str(path) for path in images if not path.exists()]
    if missing:
        raise FileNotFoundError(f'no such file: {", ".join(missing)}')
    unreadable = [str(path) for path in images if not path.is_file() or not cv2.haveImageReader(str(path))]
    if unreadable:
        raise ValueError(f'not a readable image: {", ".join(unreadable)}')
    output.mkdir(parents=True, exist_ok=True)
    overlays = []
    for path in tqdm(images, desc='segment', unit='image', leave=False):
        rgb = read_rgb(path)
        labels = pipeline(rgb).labels
        picture = draw_overlay(rgb, labels, pipeline.spec.classes, alpha)
        overlay = output / f'{path.stem}_overlay.png'
        cv2.imwrite(str(output / f'{path.stem}_labels.png'), labels)
        cv2.imwrite(str(overlay), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        overlays.append(overlay)
    return overlays


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('images', type=Path, nargs='+', help='image files')
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML)')
    parser.add_argument('--output', type=Path, default=Path('out/segment'), help='folder (default: %(default)s)')
    add_operating_point_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    for path in segment_images(open_pipeline(args), args.images, args.output):
        print(path, 'and', path.with_name(path.name.replace('_overlay', '_labels')).name)
    return 0
