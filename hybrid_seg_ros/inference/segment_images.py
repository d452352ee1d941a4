"""`hybrid_seg segment`: segment image files into label maps and overlays."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from hybrid_seg_ros.data.image_files import list_images, read_image
from hybrid_seg_ros.files import check_folder
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.inference.pipeline_options import add_operating_point_arguments, open_pipeline
from hybrid_seg_ros.visualization import draw_overlay, write_png


class SegmentedFile(NamedTuple):
    """The two files written of an image."""

    labels: Path
    overlay: Path


def segment_images(
    pipeline: SegmentationPipeline, images: Sequence[Path], output: Path, alpha: float = 0.5
) -> Iterator[SegmentedFile]:
    """Write, for each image, NAME_labels.png (class ids, 255 = unlabelled) and NAME_overlay.png, and yield the paths.

    Raises ValueError that names an unreadable image, two images of one name, or an image that would be written over,
    before anything is written; and OSError that names a file that cannot be.
    """
    written = {path: SegmentedFile(*(output / f'{path.stem}_{kind}.png' for kind in SegmentedFile._fields))
               for path in images}  # fmt: skip
    names = [path.stem for path in images]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f'images of the same name would overwrite each other: {", ".join(repeated)}')
    targets = {os.path.realpath(target) for pair in written.values() for target in pair}
    overwritten = [str(path) for path in images if os.path.realpath(path) in targets]
    if overwritten:
        raise ValueError(f'would write over images of its own, choose another --output: {", ".join(overwritten)}')
    for path in images:
        read_image(path)
    for path in images:
        rgb = read_image(path)
        labels = pipeline(rgb).labels
        write_png(written[path].labels, labels)
        write_png(written[path].overlay, draw_overlay(rgb, labels, pipeline.spec.classes, alpha))
        yield written[path]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('images', type=Path, nargs='+', help='image files, or folders of them')
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML), or a name in models/')
    parser.add_argument('--output', type=Path, default=Path('out/segment'), help='folder (default: %(default)s)')
    add_operating_point_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    check_folder(args.output)
    images: list[Path] = []
    for path in args.images:
        found = list_images(path) if path.is_dir() else [path]
        if not found:
            raise ValueError(f'{path}: no image in this folder')
        images += found
    files = segment_images(open_pipeline(args), images, args.output)
    for labels, overlay in tqdm(files, 'segment', len(images), unit='image', leave=False, disable=None):
        tqdm.write(f'{overlay} and {labels.name}')
    return 0
