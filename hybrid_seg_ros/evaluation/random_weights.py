"""Models with random weights, for timing alone: on disk, so that every backend loads them as it loads any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from hybrid_seg_ros.inference.preprocess import fit_geometry, preprocess
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.checkpoint import save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter

TRAINED_SPREAD = 4.4
"""Standard deviation of a class's mask logits over an image, in the shipped model on street images (3.8 to 4.7)."""


def random_segmenter(spec: ModelSpec, image: np.ndarray, seed: int) -> HybridSegmenter:
    """Return a segmenter of `spec` with random weights, in evaluation mode; its own weights are not read.

    How long the way from class scores to a label map takes depends on how many classes can win in a cell. Random
    weights alone give flat masks, of which the one or two classes win that are present by chance. So the last
    queries of an ATM head are scaled until its masks of `image` (H, W, 3) uint8 spread as those of a trained model.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(seed)
        model = HybridSegmenter(dataclasses.replace(spec, weights=None, sha256=None)).eval()
    if not isinstance(model.head, AtmHead):
        return model
    geometry = fit_geometry(image.shape[:2], spec)
    with torch.no_grad():
        pixels = torch.from_numpy(preprocess(image, geometry, spec)[None])
        masks = model(model.normalize(pixels), Variant(), spec.budget).stages[-1].mask_logits  # (1, classes, N)
        # a whole number, so that the weights do not depend on the last bits of a sum
        factor = max(1, round(TRAINED_SPREAD / max(float(masks.std(2).mean()), 1e-6)))
        queries = model.head.decoder.layers[-1].mask_attention.q
        queries.weight.mul_(factor)
        queries.bias.mul_(factor)
    return model


def write_random_model(spec: ModelSpec, path: Path, image: np.ndarray, seed: int) -> ModelSpec:
    """Write `path` (YAML) and random weights in float32 beside it; returns the spec as written."""
    return save_model(random_segmenter(spec, image, seed), path, torch.float32)
