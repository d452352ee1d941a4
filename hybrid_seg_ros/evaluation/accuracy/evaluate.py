"""`hybrid_seg evaluate`: mIoU, token counts, GFLOPs and milliseconds of a model on a dataset."""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from tqdm import tqdm

from hybrid_seg_ros.data.registry import add_dataset_arguments, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import FileDataset, SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.calibration import (
    THRESHOLDS,
    StageCalibration,
    calibrate,
    check_head,
    draw_reliability,
    format_calibration,
)
from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.evaluation.accuracy.policy_accuracy import count_wrong_merges
from hybrid_seg_ros.evaluation.flops.count import frame_gflops
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
from hybrid_seg_ros.files import check_file, write_json
from hybrid_seg_ros.inference.backends import AUTO
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend, torch_device
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.inference.pipeline_options import add_operating_point_arguments, open_pipeline
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.segmentation import StageTimings
from hybrid_seg_ros.visualization import draw_overlay, fit_image

STEPS = ('preprocess', 'inference', 'postprocess', 'total')


@dataclass(frozen=True)
class EvaluationResult:
    """Results over a dataset; per cent. `tokens_mean` is per stage, in the order of TokenReport.stages.

    `gflops_mean` counts everything that ran, policy network and auxiliary heads included. A class that occurs in
    neither labels nor predictions has IoU None and is left out of `miou`. `median_ms` is the median per image of the
    pipeline's steps, `preprocess`, `inference` and `postprocess`, and of their `total`, reading files aside.
    `wrongly_merged` is the share of windows with several classes among those that were merged, None where none was or
    with a sliding window.
    """

    miou: float
    pixel_accuracy: float
    iou_per_class: dict[str, Optional[float]]
    tokens_mean: dict[str, float]
    gflops_mean: float
    frames: int
    median_ms: dict[str, float]
    wrongly_merged: Optional[float] = None


def evaluate(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, limit: Optional[int] = None
) -> EvaluationResult:
    """Run the pipeline over a dataset (or its first `limit` samples) and compare labels at the image's size."""
    frames = count_frames(dataset, limit)
    matrix = ConfusionMatrix(len(dataset.classes))
    tokens: dict[str, list[int]] = {}
    gflops: list[float] = []
    timings: list[StageTimings] = []
    wrong = merged = 0
    for index in tqdm(range(frames), desc=f'evaluate {pipeline.variant}', unit='image', leave=False, disable=None):
        sample = dataset[index]
        result = pipeline(sample.image)
        matrix.update(result.labels, sample.labels)
        for stage, count in result.tokens.stages.items():
            tokens.setdefault(stage, []).append(count)
        gflops.append(frame_gflops(pipeline.spec, pipeline.variant, result.tokens.stages))
        timings.append(result.timings)
        if pipeline.spec.inference == 'whole':
            counts = count_wrong_merges(result.tokens, sample.labels, pipeline.spec)
            wrong, merged = wrong + counts[0], merged + counts[1]
    return EvaluationResult(
        miou=matrix.miou(),
        pixel_accuracy=matrix.pixel_accuracy(),
        iou_per_class=matrix.iou_by_name(dataset.classes.names),
        tokens_mean={stage: float(np.mean(counts)) for stage, counts in tokens.items()},
        gflops_mean=float(np.mean(gflops)),
        frames=frames,
        median_ms={step: statistics.median(getattr(laps, f'{step}_ms') for laps in timings) for step in STEPS},
        wrongly_merged=100.0 * wrong / merged if merged else None,
    )


def add_model_and_dataset_arguments(parser: argparse.ArgumentParser, of_model: str = '') -> None:
    """Declare --model, --dataset, --root, --split and --limit, which say what is evaluated."""
    parser.add_argument('--model', type=Path, required=True,
                        help=f'model specification (YAML), or a name in models/{of_model}')
    add_dataset_arguments(parser)
    parser.add_argument('--split', default='val')
    parser.add_argument('--limit', type=int, help='only the first images')


def open_samples(args: argparse.Namespace, spec: ModelSpec) -> tuple[FileDataset, int]:
    """Open the dataset that the options name, and count the samples that they ask for.

    Raises ValueError or OSError for one that is not there, or whose classes are not the model's.
    """
    dataset = open_dataset(args.dataset, args.root, args.split)
    check_classes(spec, dataset)
    return dataset, count_frames(dataset, args.limit)


def count_frames(dataset: SegmentationDataset, limit: Optional[int]) -> int:
    """Return how many samples an evaluation covers. Raises ValueError for a limit below 1."""
    if limit is not None and limit < 1:
        raise ValueError(f'--limit: expected at least 1 image, got {limit}')
    return len(dataset) if limit is None else min(len(dataset), limit)


def evaluate_model(
    model: HybridSegmenter, spec: ModelSpec, dataset: SegmentationDataset, variant: Variant, precision: str,
    device: Optional[torch.device] = None,
) -> EvaluationResult:  # fmt: skip
    """Evaluate a model in memory, on the CPU if no device is given; the model is cast to `precision`."""
    backend = TorchBackend(model, device or torch.device('cpu'), precision)
    return evaluate(SegmentationPipeline(spec, backend, 'pytorch', precision, variant), dataset)


def check_classes(spec: ModelSpec, dataset: SegmentationDataset) -> None:
    """Raise ValueError unless the model's classes are those of the dataset."""
    if spec.classes.names != dataset.classes.names:
        raise ValueError(
            f'{spec.name}: expected the classes of the dataset, {", ".join(dataset.classes.names)}; '
            f'got {", ".join(spec.classes.names)}'
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model_and_dataset_arguments(parser)
    add_operating_point_arguments(parser, compared=True)
    parser.add_argument('--calibration', nargs='?', const=True, metavar='FIGURE', help='also say whether the '
                        'confidence that prunes can be trusted, and draw a PNG file of it')  # fmt: skip
    parser.add_argument('--json', type=Path, help='write the results here')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    dataset, _ = open_samples(args, ModelSpec.load(args.model))
    pipeline = open_pipeline(args)
    if args.calibration:
        _check_calibration(pipeline.spec, args)
    result = evaluate(pipeline, dataset, args.limit)
    accuracy = f'mIoU {result.miou:.2f} %, pixel accuracy {result.pixel_accuracy:.2f} %'
    if math.isnan(result.miou):
        accuracy = 'mIoU unknown, not a single pixel has a label,'
    print(f'{pipeline.spec.name} {pipeline.variant}: {accuracy} over {result.frames} images')
    for name, iou in result.iou_per_class.items():
        print(f'  {name:<16}' + ('absent' if iou is None else f'{iou:6.2f}'))
    print('tokens ' + ', '.join(f'{stage} {count:.1f}' for stage, count in result.tokens_mean.items()))
    if result.wrongly_merged is not None:
        print(f'merged windows that hold several classes {result.wrongly_merged:.2f} %')
    print(f'GFLOPs {result.gflops_mean:.3f} (policy network and auxiliary heads counted)')
    print('median ms per image ' + ', '.join(f'{step} {ms:.1f}' for step, ms in result.median_ms.items())
          + f' ({pipeline.backend_name} in {pipeline.precision} on {pipeline.device_name})')  # fmt: skip
    content = {**dataclasses.asdict(result), 'backend': pipeline.backend_name, 'device': pipeline.device_name,
               'precision': pipeline.precision}  # fmt: skip
    if args.calibration:
        stages = _calibrate(args, pipeline, dataset, result.frames)
        content['calibration'] = [dataclasses.asdict(stage) for stage in stages]
    if args.json:
        write_json(args.json, content)
    return 0


def _check_calibration(spec: ModelSpec, args: argparse.Namespace) -> None:
    """Raise, before anything is evaluated, what calibration would raise in the end."""
    if args.backend not in (AUTO, 'pytorch'):
        raise ValueError(f'--calibration: expected backend pytorch, got {args.backend}')
    check_head(spec)
    if args.calibration is not True:
        check_file(Path(args.calibration), '--calibration')
        require_matplotlib()


def _calibrate(
    args: argparse.Namespace, pipeline: SegmentationPipeline, dataset: SegmentationDataset, frames: int
) -> list[StageCalibration]:
    """Judge the model's heads, print what came of it, and draw it if a file is named."""
    spec = pipeline.spec
    device = torch_device('cpu' if pipeline.device_name == 'cpu' else 'cuda' if args.device == AUTO else args.device)
    thresholds = tuple(sorted({*THRESHOLDS, spec.budget.threshold}))
    stages = calibrate(load_model(spec).to(device), dataset, frames, thresholds)
    print(format_calibration(stages))
    if args.calibration is not True:
        title = f'{spec.name} on {args.dataset} {args.split} ({frames} frames): confidence of the tokens and the truth'
        draw_reliability(stages, spec.budget.threshold, title, Path(args.calibration))
    return stages


def prediction_pictures(
    model: HybridSegmenter, spec: ModelSpec, dataset: SegmentationDataset, variant: Variant, precision: str,
    device: torch.device, count: int = 4, height: int = 240,
) -> tuple[tuple[str, np.ndarray], ...]:  # fmt: skip
    """Return (name, picture) of `count` samples spread over the dataset, (height, W, 3) uint8 RGB.

    Left to right: the image, the labels over it, the prediction over it. The model is cast to `precision`.
    """
    pipeline = SegmentationPipeline(spec, TorchBackend(model, device, precision), 'pytorch', precision, variant)
    indices = sorted(set(np.linspace(0, len(dataset) - 1, num=min(count, len(dataset))).astype(int).tolist()))
    pictures = []
    for sample in (dataset[index] for index in indices):
        predicted = pipeline(sample.image).labels
        overlays = [draw_overlay(sample.image, labels, spec.classes) for labels in (sample.labels, predicted)]
        row = np.concatenate([sample.image, *overlays], axis=1)
        pictures.append((sample.name, fit_image(row, (height, round(row.shape[1] * height / row.shape[0])))))
    return tuple(pictures)
