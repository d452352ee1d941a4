"""`hybrid_seg check-parity`: hold the labels and token reports of backends against those of PyTorch in float32."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.image_files import IMAGE_SUFFIXES, list_images, read_image
from hybrid_seg_ros.inference.backends import BACKENDS, BackendChoice, check_choice
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.inference.pipeline_options import add_keep_argument, fixed_keep, say_what_has_no_effect, split_list
from hybrid_seg_ros.model_spec import Keep, ModelSpec, Variant
from hybrid_seg_ros.segmentation import Segmentation

REQUIRED_PERCENT = {'float32': 99.9, 'float16': 99.5, 'bfloat16': 99.5}
"""Least share of pixels with PyTorch's label, over all images."""


@dataclass(frozen=True)
class ParityRow:
    """One variant on one backend, held against PyTorch in float32.

    `same_labels` and `worst_image`: per cent of pixels, of all images and of the worst one. `same_tokens`: per cent of
    patches whose token merged and left at the same place. `confidence_error`: the largest difference.
    `kept_counts`: the numbers of tokens that went on after the last pruning layer, over the images. `problem` says what
    falls short; None where all is well.
    """

    variant: str
    pruning: str
    backend: str
    dtype: str
    same_labels: float
    worst_image: float
    same_tokens: float
    confidence_error: float
    kept_counts: tuple[int, ...]
    problem: Optional[str]


def compare(reference: Sequence[Segmentation], results: Sequence[Segmentation], dtype: str) -> dict[str, object]:
    """Return the measured fields of a ParityRow, and its problem."""
    same = [float(np.mean(a.labels == b.labels)) * 100 for a, b in zip(reference, results)]
    pixels = [a.labels.size for a in reference]
    same_labels = float(np.average(same, weights=pixels))
    tokens = [
        np.mean((a.tokens.window_size == b.tokens.window_size)
                & (a.tokens.pruned_after_layer == b.tokens.pruned_after_layer)) * 100
        for a, b in zip(reference, results)
    ]  # fmt: skip
    same_tokens = float(np.mean(tokens))
    problem = None
    if same_labels < REQUIRED_PERCENT[dtype]:
        problem = f'labels: expected {REQUIRED_PERCENT[dtype]} % the same'
    elif dtype == 'float32' and same_tokens < REQUIRED_PERCENT[dtype]:
        problem = f'token report: expected {REQUIRED_PERCENT[dtype]} % the same'
    elif [a.tokens.entering for a in reference] != [b.tokens.entering for b in results]:
        problem = 'token report: expected as many tokens to enter'
    kept = {a.tokens.kept[-1][1] for a in reference if a.tokens.kept}
    return {
        'same_labels': same_labels,
        'worst_image': min(same),
        'same_tokens': same_tokens,
        'confidence_error': max(float(np.abs(a.confidence - b.confidence).max()) for a, b in zip(reference, results)),
        'kept_counts': tuple(sorted(kept)),
        'problem': problem,
    }


def check_parity(
    model: Path, images: Sequence[np.ndarray], variants: Sequence[str], backends: Sequence[BackendChoice],
    keep: Sequence[Keep], threshold: float, device: str = 'cpu', cache_dir: Optional[Path] = None,
) -> list[ParityRow]:  # fmt: skip
    """Run each variant on each backend; one that prunes, by fixed keep and by threshold."""
    points = [
        (variant, pruning)
        for variant in variants
        for pruning in (('keep', 'threshold') if Variant.parse(variant).prune_layers else ('',))
    ]
    rows = []
    runs = len(points) * (1 + len(backends))
    with tqdm(total=runs, desc='check-parity', unit='run', leave=False, disable=None) as bar:
        for variant, pruning in points:
            options = {'keep': {'keep': keep}, 'threshold': {'threshold': threshold}, '': {}}[pruning]
            reference = _segment(images, model, backend='pytorch', precision='float32', device='cpu', variant=variant,
                                 **options)  # fmt: skip
            bar.update()
            for choice in backends:
                results = _segment(images, model, backend=choice.name, precision=choice.dtype, device=device,
                                   variant=variant, cache_dir=cache_dir, **options)  # fmt: skip
                measured = compare(reference, results, choice.dtype)
                rows.append(ParityRow(variant, pruning, choice.name, choice.dtype, **measured))
                bar.update()
    return rows


def read_images(paths: Sequence[Path]) -> list[np.ndarray]:
    """Read image files, and all those of folders, as RGB. Raises ValueError that names what is no image."""
    files: list[Path] = []
    for path in paths:
        inside = list_images(path) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f'no images in {path}; expected files that end in {", ".join(IMAGE_SUFFIXES)}')
        files += inside
    return [read_image(file) for file in files]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('images', type=Path, nargs='+', help='real images: files, or folders of them')
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML), or a name in models/')
    parser.add_argument('--variants', nargs='+', help='(default: all of the model)')
    parser.add_argument('--backends', nargs='+', default=['onnxruntime'], metavar='NAME[:DTYPE]',
                        help=f'of {", ".join(BACKENDS)}; float32 if not named (default: onnxruntime)')  # fmt: skip
    add_keep_argument(parser, fixed=True)
    parser.add_argument('--threshold', type=float, help="pruning threshold, tried as well (default: the model's)")
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache)')


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status is 1 if any row falls short."""
    spec = ModelSpec.load(args.model)
    backends = [BackendChoice.parse(text) for text in split_list(args.backends)]
    for choice in backends:
        check_choice(choice.name, args.device, choice.dtype)
    for variant in args.variants or ():
        spec.check_variant(Variant.parse(variant))
    variants = args.variants or spec.legal_variants()
    say_what_has_no_effect(args, list(map(Variant.parse, variants)))
    threshold = spec.budget.threshold if args.threshold is None else args.threshold
    keep = fixed_keep(args.keep, spec.budget)
    images = read_images(args.images)
    rows = check_parity(args.model, images, variants, backends, keep, threshold, args.device, args.cache_dir)
    print(f'{spec.name}, {len(images)} images, against PyTorch in float32 (per cent)')
    print(f'{"variant":<11}{"pruning":<10}{"backend":<12}{"dtype":<9}{"labels":>9}{"worst":>9}{"tokens":>9}  kept')
    for row in rows:
        kept = f'{row.kept_counts[0]}-{row.kept_counts[-1]}' if row.kept_counts else ''
        print(f'{row.variant:<11}{row.pruning:<10}{row.backend:<12}{row.dtype:<9}{row.same_labels:9.3f}'
              f'{row.worst_image:9.3f}{row.same_tokens:9.2f}  {kept}{"  " + row.problem if row.problem else ""}')
    failed = sum(row.problem is not None for row in rows)
    print('all agree' if not failed else f'{failed} of {len(rows)} fall short')
    return 1 if failed else 0


def _segment(images: Sequence[np.ndarray], model: Path, **options: object) -> list[Segmentation]:
    pipeline = load_pipeline(model, **options)
    try:
        return [pipeline(image) for image in images]
    finally:
        pipeline.close()
