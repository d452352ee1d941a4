"""Shift the refined masks' logits, a number per class, so that mean IoU is highest; writes the model anew.

A cross-entropy with a weight per class leaves classes that claim too much and others that claim too little; and what is
best for IoU is another threshold than what is best for accuracy (Lipton et al., "Optimal Thresholding of Classifiers to
Maximize F1 Measure", 2014). Coordinate ascent on the mean of the splits' mIoU, dense variant: val alone would choose
what only its frames like, train alone what a network says of frames that it knows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tool import count, run_tool

from hybrid_seg_ros.data.registry import add_dataset_arguments, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import check_classes
from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.evaluation.accuracy.policy_accuracy import fit_labels
from hybrid_seg_ros.inference.preprocess import fit_geometry, preprocess
from hybrid_seg_ros.model_path import resolve_model_path
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.checkpoint import load_model, save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter

STEPS = (0.6, 0.3, 0.1)
LEAST_GAIN = 1e-3
"""Per cent of mIoU for which a class is shifted by a step."""

FINER = 2
"""Scores are compared at so many times the refinement's resolution: what is thin has its edges between its cells."""

Frames = tuple[torch.Tensor, torch.Tensor, np.ndarray]
"""Presence (N, classes), refined logits (N, classes, h, w) and labels (N, FINER h, FINER w) uint8."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--model', required=True, help='model specification (YAML), or a name in models/')
    add_dataset_arguments(parser)
    parser.add_argument('--splits', nargs='+', default=['val', 'train'], help='(default: %(default)s)')
    parser.add_argument('--every', type=count, default=1, help='take every n-th image (default: %(default)s)')
    parser.add_argument('--output', type=Path, required=True, help='the new model (YAML), weights beside it')


def run(args: argparse.Namespace) -> int:
    """Fit the shifts, print what they give, and write the model."""
    model_path = resolve_model_path(args.model)
    spec = ModelSpec.load(model_path)
    if spec.refinement == 'none':
        raise ValueError(f'{spec.name}: expected a model with refinement: image, whose last bias is shifted')
    if spec.inference != 'whole':
        raise ValueError(f'{spec.name}: expected inference: whole, got {spec.inference}')
    if args.output.suffix != '.yaml' or args.output.resolve() == model_path.resolve():
        raise ValueError(f'--output: expected a name that ends in .yaml, other than --model; got {args.output}')
    args.output.parent.mkdir(parents=True, exist_ok=True)
    datasets = {split: open_dataset(args.dataset, args.root, split) for split in args.splits}
    for dataset in datasets.values():
        check_classes(spec, dataset)
    model = load_model(spec)
    frames = {split: collect_frames(model, dataset, args.every) for split, dataset in datasets.items()}
    shifts = fit_shifts(frames)
    for split, each in frames.items():
        before, after = (measure(each, values).miou() for values in (np.zeros_like(shifts), shifts))
        print(f'{split}: mIoU {before:.2f} -> {after:.2f} % of the {len(each[0])} images that it was fitted to')
    for name, shift in zip(spec.classes.names, shifts):
        print(f'  {name:<16}{shift:+.2f}')
    with torch.no_grad():
        model.refinement.output.bias += torch.from_numpy(shifts)
    print(f'written to {args.output}, sha256 {save_model(model, args.output).sha256}')
    return 0


def collect_frames(model: HybridSegmenter, dataset: SegmentationDataset, every: int) -> Frames:
    """Run the dense variant on every n-th image of a dataset."""
    spec, present, logits, labels = model.spec, [], [], []
    with torch.inference_mode():
        for index in range(0, len(dataset), every):
            sample = dataset[index]
            geometry = fit_geometry(sample.labels.shape, spec)
            pixels = torch.from_numpy(preprocess(sample.image, geometry, spec))[None]
            output = model(model.normalize(pixels), Variant(), spec.budget)
            present.append(AtmHead.class_probability(output.stages[-1].class_logits)[0])
            logits.append(output.refined_logits[0])
            content_hw = tuple(round(side * FINER / spec.cell_px) for side in geometry.content_hw)
            labels.append(fit_labels(sample.labels, content_hw, tuple(side * FINER for side in logits[-1].shape[1:])))
    return torch.stack(present), torch.stack(logits), np.stack(labels)


def measure(frames: Frames, shifts: np.ndarray) -> ConfusionMatrix:
    """Compare what shifted logits say, interpolated as the pipeline does it, with the labels."""
    shift = torch.from_numpy(shifts)[:, None, None]
    matrix = ConfusionMatrix(len(shifts))
    for present, logits, labels in zip(*frames):
        scores = present[:, None, None] * (logits + shift).sigmoid()
        finer = F.interpolate(scores[None], scale_factor=FINER, mode='bilinear')[0]
        matrix.update(finer.argmax(0).byte().numpy(), labels)
    return matrix


def fit_shifts(frames: Mapping[str, Frames]) -> np.ndarray:
    """Return the shift of each class (classes,) float32; their mean is 0, for one common to all changes no label."""

    def score(shifts: np.ndarray) -> float:
        return float(np.mean([measure(each, shifts).miou() for each in frames.values()]))

    shifts = np.zeros(next(iter(frames.values()))[0].shape[1], np.float32)
    best = score(shifts)
    for step in STEPS:
        for index in range(len(shifts)):
            for change in (step, -step):
                while True:
                    tried = shifts.copy()
                    tried[index] += change
                    value = score(tried)
                    if value <= best + LEAST_GAIN:
                        break
                    best, shifts = value, tried
    return shifts - shifts.mean()


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
