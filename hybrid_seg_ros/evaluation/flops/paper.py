"""What the paper reports, and the form that it and the official code give a model.

"Optimising ViT for Edge Deployment: Hybrid Token Reduction for Efficient Semantic Segmentation" (CEA List), tables 1.1
and 1.2: ADE20K, 150 classes, 512x512. The GFLOPs of merged ViT-Tiny leave out the policy network (1.97 GFLOPs): the
blocks alone take 6.17, and 6.17 + 1.97 is above the 7.6 reported for it. FPS are on an NVIDIA Jetson.
"""

from __future__ import annotations

import dataclasses

from hybrid_seg_ros.model_spec import ModelSpec

PAPER_CLASSES, PAPER_SIZE_HW = 150, (512, 512)

PAPER_GFLOPS = {
    'vit_base': {'dense': 112.8, 'cts': 75.4, 'dtop@6+8': 86.3, 'hybrid@6+8': 62.1, 'hybrid@8': 68.3},
    'vit_tiny': {'dense': 12.0, 'cts': 7.6, 'dtop@6+8': 9.9, 'hybrid@6+8': 6.8, 'hybrid@8': 6.9},
}
"""GFLOPs by backbone and variant; multiply-add = 1. Those that prune depend on how many tokens ADE20K's images kept."""

PAPER_FPS = {
    'vit_base': {'dense': 6.8, 'cts': 13.3, 'hybrid@6+8': 4.5, 'hybrid@8': 6.5},
    'vit_tiny': {'dense': 15.6, 'cts': 15.4, 'hybrid@6+8': 9.3, 'hybrid@8': 13.1},
}
"""Frames per second by backbone and variant, on the paper's Jetson."""


PAPER_FORM = {'policy': 'efficientnet_lite0', 'auxiliary_head': 'atm', 'refinement': 'none'}


def paper_form(spec: ModelSpec) -> ModelSpec:
    """Return a spec in the paper's form: same backbone, classes, head and size.

    A model that has this form already is returned as it is; the weights of another do not fit, and are left out.
    """
    form = dataclasses.replace(spec, **PAPER_FORM)
    return form if form == spec else dataclasses.replace(form, weights=None, sha256=None)
