"""How soon what appears inside a merged window is seen, in a film.

A window that merges because the answer before was "all road" must not hide who steps onto it. So objects cut out of one
split are pasted into windows that have merged, in the frames of another, from a known frame on; counted are the frames
until most of their pixels have their class, for the dense model, the policy network and the frame before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from tool import count, positive, run_tool

from hybrid_seg_ros.data.registry import add_dataset_arguments, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import check_classes
from hybrid_seg_ros.evaluation.pages.tables import format_table
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.film import Film
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, choose_budget
from hybrid_seg_ros.inference.pipeline_options import (
    add_merged_windows_argument,
    add_operating_point_arguments,
    open_pipeline,
)
from hybrid_seg_ros.model_spec import Variant

SIDES_PX = (24, 96)
"""Least and largest height of an object."""
WARM_UP, SHOWN = 6, 10
"""Frames of the film before the object appears, and with it."""
ROWS = ('dense', 'policy', 'previous')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML), or a name in models/')
    add_dataset_arguments(parser)
    add_operating_point_arguments(parser, compared=True)
    add_merged_windows_argument(parser)
    parser.add_argument('--classes', nargs='+', default=['pedestrian', 'bicyclist', 'sign symbol'], metavar='NAME')
    parser.add_argument('--count', type=count, default=40, help='objects (default: %(default)s)')
    parser.add_argument('--rate', type=positive, default=15.0, help='frames a second (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='write the figures here')


def run(args: argparse.Namespace) -> int:
    """Paste objects of the train split, pasted into the val split, whose frames are a film."""
    train, video = (open_dataset(args.dataset, args.root, split) for split in ('train', 'val'))
    pipeline = open_pipeline(args)
    check_classes(pipeline.spec, video)
    if not pipeline.variant.merges:
        raise ValueError(f'--variant: expected one that merges windows, got {pipeline.variant}')
    if len(video) < WARM_UP + SHOWN:
        raise ValueError(f'{args.dataset}: expected at least {WARM_UP + SHOWN} frames in val, got {len(video)}')
    unknown = [name for name in args.classes if name not in video.classes.names]
    if unknown:
        raise ValueError(f'--classes: expected some of {", ".join(video.classes.names)}; got {", ".join(unknown)}')
    pipeline.set_operating_point(budget=choose_budget(pipeline.budget, merged_windows=args.merged_windows))
    cuts = list(cut_objects(train, [video.classes.names.index(name) for name in args.classes]))
    if not cuts:
        raise ValueError(f'{args.dataset}: no {", ".join(args.classes)} is {SIDES_PX[0]} to {SIDES_PX[1]} px high')
    found = paste_objects(pipeline, video, cuts, args.count, args.rate)
    if not found:
        raise ValueError('expected merged windows that hold an object; none does')
    by_dense = [each for each in found if each['dense'] is not None]
    lines = []
    for row in ROWS:
        late = [each[row] - each['dense'] for each in by_dense if each[row] is not None]
        share = 100 * sum(frames <= 2 for frames in late) / max(1, len(by_dense))
        seen = sum(each[row] is not None for each in found)
        lines.append([row, f'{seen}', f'{len(late)}', f'{sum(frames <= 0 for frames in late)}', f'{share:.1f}'])
    print(f'{pipeline.spec.name} {pipeline.variant}: {len(found)} objects, {SHOWN} frames each, {args.rate:g} Hz')
    columns = ['windows by', 'seen', 'of those dense sees', 'as soon as dense', '% within 2 frames of dense']
    print(format_table(columns, lines))
    if args.json:
        write_json(args.json, found)
    return 0


@dataclass(frozen=True)
class CutOut:
    """An object: its class, picture (h, w, 3) RGB and mask (h, w) bool."""

    label: int
    picture: np.ndarray
    mask: np.ndarray


def cut_objects(dataset: SegmentationDataset, classes: Sequence[int]) -> Iterator[CutOut]:
    """Yield the connected regions of `classes` that are as high as SIDES_PX says and fill half of their box."""
    for index in range(len(dataset)):
        sample = dataset[index]
        for label in classes:
            _, regions, boxes, _ = cv2.connectedComponentsWithStats((sample.labels == label).astype(np.uint8))
            for region, (left, top, width, height, area) in enumerate(boxes.tolist()):
                box = (slice(top, top + height), slice(left, left + width))
                if region and SIDES_PX[0] <= height <= SIDES_PX[1] and area >= 0.5 * width * height and width >= 12:
                    yield CutOut(label, sample.image[box], regions[box] == region)


def merged_places(window_size: np.ndarray, image_hw: tuple[int, int], cut: CutOut) -> np.ndarray:
    """Return (n, 2) the corners, top and left in pixels, where an object covers nothing but merged windows."""
    merged = cv2.resize((window_size > 1).astype(np.uint8), image_hw[::-1], interpolation=cv2.INTER_NEAREST)
    height, width = cut.mask.shape
    if height > image_hw[0] or width > image_hw[1]:
        return np.zeros((0, 2), np.int64)
    sums = cv2.integral(merged)
    covered = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return np.argwhere(covered == height * width)


def frames_until_seen(
    pipeline: SegmentationPipeline, frames: Sequence[np.ndarray], film: Film, period_s: float, cut: CutOut,
    corner: tuple[int, int],
) -> Optional[int]:  # fmt: skip
    """Return how many frames after its first the pasted object has its class on most of its pixels; None: never."""
    box = tuple(slice(at, at + side) for at, side in zip(corner, cut.mask.shape))
    for index, image in enumerate(frames):
        shown = index - WARM_UP
        if shown >= 0:
            image = image.copy()
            image[box][cut.mask] = cut.picture[cut.mask]
        labels = pipeline(image, film, index * period_s).labels
        if shown >= 0 and np.mean(labels[box][cut.mask] == cut.label) > 0.5:
            return shown
    return None


def paste_objects(
    pipeline: SegmentationPipeline, video: SegmentationDataset, cuts: Sequence[CutOut], count: int, rate_hz: float,
    seed: int = 0,
) -> list[dict[str, Optional[int]]]:  # fmt: skip
    """Paste `count` objects, one after the other, at random; return per object and row the frames until it is seen."""
    rng = np.random.default_rng(seed)
    variant, found = pipeline.variant, []
    for index in rng.permutation(len(cuts) * 4):
        if len(found) == count:
            break
        cut, start = cuts[index % len(cuts)], int(rng.integers(0, len(video) - WARM_UP - SHOWN + 1))
        frames = [video[place].image for place in range(start, start + WARM_UP + SHOWN)]
        film = Film('previous')
        for place, image in enumerate(frames[:WARM_UP]):
            result = pipeline(image, film, place / rate_hz)
        corners = merged_places(result.tokens.window_size, frames[0].shape[:2], cut)
        if not len(corners):
            continue
        corner = tuple(rng.choice(corners).tolist())
        seen = {}
        for row in ROWS:
            pipeline.set_operating_point(Variant() if row == 'dense' else variant)
            film = Film('previous' if row == 'previous' else 'policy')
            seen[row] = frames_until_seen(pipeline, frames, film, 1 / rate_hz, cut, corner)
        pipeline.set_operating_point(variant)
        found.append({'class': cut.label, 'height_px': cut.mask.shape[0], **seen})
    return found


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
