"""PlainPipeline: segmentation as the official code does it, nothing made fast; the others are held against it."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_seg_ros.evaluation.flops.paper import PAPER_FORM, paper_form
from hybrid_seg_ros.inference.backends.torch_backend import predictions, torch_device
from hybrid_seg_ros.inference.preprocess import FrameGeometry, check_image, fit_geometry, preprocess
from hybrid_seg_ros.inference.process_memory import keep_freed_memory
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter, SegmenterOutput
from hybrid_seg_ros.segmentation import Segmentation, StageTimings


class PlainPipeline:
    """The same three steps as SegmentationPipeline, on whole frames, written the obvious way in PyTorch.

    Batch norms stay, the image is contiguous by channels, every class is upsampled to full size, and then the best is
    taken. The network is the same code as everywhere, so that its attention is a fused one, which the official is not.
    """

    def __init__(
        self, model: HybridSegmenter, variant: Variant, budget: TokenBudget, device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.spec, self.variant, self.budget = model.spec, variant, budget
        self.spec.check_variant(variant)
        if self.spec != paper_form(self.spec):
            raise ValueError(f'{self.spec.name}: expected a model in the form of the paper, {PAPER_FORM}')
        if self.spec.inference != 'whole':
            raise ValueError(f'{self.spec.name}: expected inference whole, got {self.spec.inference}')
        keep_freed_memory()  # as load_pipeline does: what came from memory would be no fair gain
        self._device = device
        self.device_name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
        self._model = model.eval().to(device=device, dtype=dtype)

    @classmethod
    def load(
        cls, spec: ModelSpec, variant: Variant, budget: TokenBudget, device: str = 'cpu', precision: str = 'float32'
    ) -> 'PlainPipeline':
        """Load the weights of `spec`. Raises ValueError for a device or precision that cannot be had."""
        return cls(load_model(spec), variant, budget, torch_device(device, precision), getattr(torch, precision))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8."""
        check_image(image)
        times = [time.perf_counter()]
        geometry = fit_geometry(image.shape[:2], self.spec)
        pixels = torch.from_numpy(preprocess(image, geometry, self.spec)[None])
        times.append(time.perf_counter())
        network_input = self._model.normalize(pixels.to(self._device)).contiguous()
        output = self._model(network_input, self.variant, self.budget)
        tokens = predictions(output, self.variant)[0].tokens  # on a GPU this also waits for the network
        times.append(time.perf_counter())
        confidence, labels = upsample_then_argmax(output, geometry)
        labels = labels.to(torch.uint8).cpu().numpy()
        confidence = confidence.cpu().numpy()
        times.append(time.perf_counter())
        laps_ms = [(end - start) * 1e3 for start, end in zip(times, times[1:])]
        return Segmentation(labels, confidence, tokens, StageTimings(*laps_ms))

    def close(self) -> None:
        """Free the weights."""
        self._model = None


def upsample_then_argmax(output: SegmenterOutput, geometry: FrameGeometry) -> tuple[Tensor, Tensor]:
    """Return confidence (H, W) float32 and labels (H, W) int64 of one image, through all classes at full size."""
    scores = _resize(output.scores.contiguous(), geometry.network_hw)
    if output.kind == 'mask_logits':
        scores = torch.einsum('bqc,bqhw->bchw', output.class_mix.float(), scores.sigmoid())
    if geometry.image_hw != geometry.network_hw:
        scores = _resize(scores[:, :, : geometry.content_hw[0], : geometry.content_hw[1]], geometry.image_hw)
    labels = scores.argmax(1)[0]
    if output.kind == 'logits':
        scores = scores.softmax(1)
    return scores.amax(1)[0].clamp(0.0, 1.0), labels


def _resize(scores: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return F.interpolate(scores, size=size_hw, mode='bilinear', align_corners=False)
