"""A tiny seeded random model on disk, which loads and runs in milliseconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.inference.points_table import PointsSource, default_points_path, format_operating_points, make_point
from hybrid_seg_ros.model_spec import Backbone, Decoder, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_heads import LightHead


def tiny_spec(**overrides: Any) -> ModelSpec:
    """Return a spec of 12 narrow layers, so that the paper's variants are legal."""
    fields: dict[str, Any] = {
        'name': 'tiny',
        'backbone': Backbone(embed_dim=24, depth=12, num_heads=3),
        'classes': CAMVID_CLASSES,
        'input_size_hw': (96, 128),
        'decoder': Decoder(dim=12, layers=2, num_heads=3),
        'variant': Variant.parse('hybrid@6+8'),
        'budget': TokenBudget(threshold=0.3),
        **overrides,
    }
    return ModelSpec(**fields)


def write_tiny_model(folder: Path, **spec_overrides: Any) -> Path:
    """Write a tiny model as YAML and safetensors; return the path of the YAML."""
    torch.manual_seed(0)
    path = Path(folder) / 'tiny.yaml'
    save_model(HybridSegmenter(tiny_spec(**spec_overrides)), path, dtype=torch.float32)
    return path


def write_tiny_points(model: Path) -> None:
    """Write a table of three operating points beside a tiny model, with tokens as they are and mIoU made up."""
    spec = ModelSpec.load(model)
    source = PointsSource(spec.name, spec.sha256, 'made up', 'val', 1, spec.inference, 'pytorch', 'float32')
    budget = dataclasses.replace(spec.budget, keep=0.3)
    points = [
        make_point(spec, Variant.parse('hybrid@8'), budget, 60.0, 1.0, {'total': 48, 'merged': 33, 'kept@8': 10}),
        make_point(spec, Variant.parse('cts'), budget, 65.0, 2.0, {'total': 48, 'merged': 33}),
        make_point(spec, Variant.parse('dense'), budget, 70.0, 3.0, {'total': 48, 'merged': 48}),
    ]
    default_points_path(model).write_text(format_operating_points(source, points))


def write_lively_model(folder: Path, **spec_overrides: Any) -> Path:
    """Write a tiny model whose batch norms have seen an image.

    In the other one the policy's features fade to nothing, so that its windows are chosen by rounding errors, and light
    heads find all classes alike.
    """
    torch.manual_seed(0)
    spec = tiny_spec(**spec_overrides)
    model = HybridSegmenter(spec)
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # the mean of all images
        elif isinstance(module, LightHead):
            module.classify.weight.data *= 5.0  # of 11 classes one has some probability
    image = torch.randint(0, 256, (1, *spec.input_size_hw, 3), dtype=torch.uint8)
    with torch.no_grad():
        model.train()(model.normalize(image), spec.variant, spec.budget)
    path = Path(folder) / 'lively.yaml'
    save_model(model, path, dtype=torch.float32)
    return path
