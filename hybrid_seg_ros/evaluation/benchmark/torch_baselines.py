"""Baselines in PyTorch: the official way, and the dense model as one module, to be compiled or exported whole."""

from __future__ import annotations

import types
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.evaluation.benchmark.baseline_pipeline import BaselinePipeline, dense_pipeline
from hybrid_seg_ros.evaluation.flops.paper import PAPER_FORM, paper_form
from hybrid_seg_ros.inference.backends.torch_backend import predictions, torch_device
from hybrid_seg_ros.inference.preprocess import FrameGeometry
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.exportable import label_map
from hybrid_seg_ros.network.segmenter import HybridSegmenter, SegmenterOutput
from hybrid_seg_ros.segmentation import TokenReport

OPSET = 17


class CompileError(ValueError):
    """torch.compile does not work, here or for a model; the message says why."""


class DenseNetwork(nn.Module):
    """RGB images (B, H, W, 3) uint8 to labels (B, H, W) uint8 and confidence (B, H, W) float32, at the same size.

    The network as it is written, in evaluation mode, then all classes upsampled bilinearly, then the best of them.
    Upsampling belongs to it, as a compiler makes it faster than PyTorch alone or NumPy behind it would be.
    """

    def __init__(self, model: HybridSegmenter) -> None:
        super().__init__()
        self.model = model
        self.eval()  # the exporter puts all modules back into the mode of this one

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Segment images (B, H, W, 3) uint8."""
        output = self.model(self.model.normalize(image), Variant(), self.model.spec.budget)
        return label_map(output, (int(image.shape[1]), int(image.shape[2])))


def open_compiled(spec: ModelSpec, device: str = 'cpu', precision: str = 'float32') -> BaselinePipeline:
    """Load the weights of `spec`, and compile the dense network with torch.compile in its default mode.

    It is compiled when this returns. Raises CompileError, or ValueError for a device or precision that cannot be had.
    """
    place = torch_device(device, precision)
    network = DenseNetwork(load_model(spec)).to(device=place, dtype=getattr(torch, precision))
    _own_code(network)
    # With static shapes, as the default mode has them until a second size is seen, which for another network would
    # count as one. The dense network is one graph; fullgraph makes it an error, not a slower run, if it should not be.
    compiled = torch.compile(network, dynamic=False, fullgraph=True)

    @torch.inference_mode()
    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, confidence = compiled(torch.from_numpy(images).to(place))
        return labels.cpu().numpy(), confidence.cpu().numpy()

    pipeline = dense_pipeline(spec, run, _name(place))
    try:
        pipeline(np.full((*spec.input_size_hw, 3), 128, np.uint8))
    except Exception as error:  # its exceptions have no common class but this
        raise CompileError(f'torch.compile: {spec.name}: {_short(error)}') from error
    return pipeline


def check_compiler(device: str = 'cpu') -> None:
    """Compile a sum, which takes some seconds. Raises CompileError that says what is missing."""
    place = torch_device(device)
    try:
        torch.compile(lambda values: values.sin() + 1.0)(torch.ones(64, device=place))
    except Exception as error:
        needs = 'a C++ compiler and the headers of Python (sudo apt install g++ python3-dev)'
        if place.type == 'cuda':
            needs += ', and Triton'
        raise CompileError(f'torch.compile needs {needs}: {_short(error)}') from error


@torch.inference_mode()
def export_dense(spec: ModelSpec, path: Path, precision: str = 'float32') -> None:
    """Write the dense network as an ONNX graph from `image` (1, H, W, 3) uint8 to `labels` and `confidence`."""
    network = DenseNetwork(load_model(spec)).to(dtype=getattr(torch, precision))
    path.parent.mkdir(parents=True, exist_ok=True)
    image = torch.zeros(1, *spec.input_size_hw, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Python numbers become constants, as they should
        torch.onnx.export(
            network, (image,), str(path), opset_version=OPSET, dynamo=False, input_names=['image'],
            output_names=['labels', 'confidence'],
        )  # fmt: skip


def _own_code(network: DenseNetwork) -> None:
    """Give a network a forward of its own: what is compiled is kept, and limited to 8, by code, not by network."""
    forward = DenseNetwork.forward
    own = types.FunctionType(forward.__code__.replace(), forward.__globals__, forward.__name__)
    network.forward = types.MethodType(own, network)


def _short(error: Exception) -> str:
    """Return the first lines of a message of pages: which step failed, and why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ' '.join(lines[:2]) or type(error).__name__


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'


def open_plain(
    spec: ModelSpec, variant: Variant, budget: TokenBudget, device: str = 'cpu', precision: str = 'float32'
) -> BaselinePipeline:
    """Load the weights of `spec` into a plain pipeline."""
    return plain_pipeline(load_model(spec), variant, budget, torch_device(device, precision), getattr(torch, precision))


def plain_pipeline(
    model: HybridSegmenter, variant: Variant, budget: TokenBudget, device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> BaselinePipeline:  # fmt: skip
    """Return a pipeline as the official code has it, written the obvious way in PyTorch, nothing made fast.

    Batch norms stay, the image is contiguous by channels, every class is upsampled to full size, and then the best is
    taken. The network is the same code as everywhere, so that its attention is a fused one, which the official is not.
    """
    spec = model.spec
    spec.check_variant(variant)
    if spec != paper_form(spec):
        raise ValueError(f'{spec.name}: expected a model in the form of the paper, {PAPER_FORM}')
    model = model.eval().to(device=device, dtype=dtype)

    @torch.inference_mode()
    def network(images: np.ndarray) -> tuple[SegmenterOutput, TokenReport]:
        network_input = model.normalize(torch.from_numpy(images).to(device)).contiguous()
        output = model(network_input, variant, budget)
        return output, predictions(output, variant)[0].tokens  # on a GPU this also waits for the network

    @torch.inference_mode()
    def complete(
        output: tuple[SegmenterOutput, TokenReport], geometry: FrameGeometry
    ) -> tuple[np.ndarray, np.ndarray, TokenReport]:
        confidence, labels = upsample_then_argmax(output[0], geometry)
        return labels.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy(), output[1]

    return BaselinePipeline(spec, network, complete, _name(device))


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
