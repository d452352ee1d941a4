"""PyTorch backend: CPU in float32 or bfloat16, CUDA in float32, float16 or bfloat16."""

from __future__ import annotations

from typing import Optional

import numpy as np
import torch

from hybrid_seg_ros.inference.backends.base import WindowScores, split_device
from hybrid_seg_ros.inference.preprocess import check_images
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.inference_form import prepare_for_inference
from hybrid_seg_ros.network.segmenter import HybridSegmenter, SegmenterOutput
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.token_merging import choose_windows, count_merged_windows
from hybrid_seg_ros.segmentation import GridPrediction, TokenReport

_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


class TorchBackend:
    """Runs a HybridSegmenter, which it takes over: batch norms are folded, weights cast to the precision."""

    def __init__(self, model: HybridSegmenter, device: torch.device, precision: str = 'float32') -> None:
        self._dtype = _DTYPES[precision]
        self._device = device
        prepare_for_inference(model.eval())
        # images come with channels last: so are the convolutions' weights, or each call would reorder them
        self._model = model.to(device=device, dtype=self._dtype, memory_format=torch.channels_last)
        self.device_name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'

    @classmethod
    def load(cls, spec: ModelSpec, device: str, precision: str) -> 'TorchBackend':
        """Load the weights of `spec`. Raises ValueError for a device or precision that cannot be had."""
        return cls(load_model(spec), torch_device(device, precision), precision)

    def keep_open(self, count: int) -> None:
        """One set of weights runs all operating points."""

    def warm_up(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget, batch: int = 1) -> None:
        """Run once on grey images."""
        self.infer(np.full((batch, *size_hw, 3), 128, np.uint8), variant, budget)

    def is_ready(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> bool:
        """Every operating point is."""
        return True

    def check(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        """Every operating point that the model has can be run."""

    @torch.inference_mode()
    def infer(
        self, images: np.ndarray, variant: Variant, budget: TokenBudget, scores: Optional[WindowScores] = None
    ) -> list[GridPrediction]:  # fmt: skip
        """Segment RGB images (B, H, W, 3) uint8."""
        check_images(images)
        model = self._model
        if model is None:
            raise RuntimeError('the backend is closed')
        # torch warns of read-only memory, which images that come out of a ROS message are
        pixels = torch.from_numpy(np.require(images, requirements=('C', 'W')))
        if self._device.type == 'cuda':
            # pinned memory comes from PyTorch's own pool, and is uploaded without waiting
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        layout = None
        if scores is not None and variant.merges:
            grid_hw = model.spec.backbone.grid_hw(images.shape[1:3])
            choice = choose_windows(scores, count_merged_windows(grid_hw, budget.windows), grid_hw)
            layout = TokenLayout.of(choice, self._device)
        output = model(model.normalize(pixels), variant, budget, layout=layout)
        return predictions(output, variant)

    def close(self) -> None:
        """Free the weights."""
        self._model = None
        if self._device.type == 'cuda':
            torch.cuda.empty_cache()


def predictions(output: SegmenterOutput, variant: Variant) -> list[GridPrediction]:
    """Split a batch's output into one GridPrediction per image, as NumPy arrays."""
    layout, grid_hw = output.layout, output.layout.grid_hw
    by_cell = torch.stack([layout.window_sizes(), output.pruned_after_layer], 2)
    by_cell = layout.unmerge(by_cell).unflatten(1, grid_hw).to(torch.uint8).cpu().numpy()  # (B, gh, gw, 2)
    scores = output.scores.float().cpu().numpy()
    mixes = None if output.class_mix is None else output.class_mix.float().transpose(1, 2).cpu().numpy()
    kept = [(s.layer, s.alive.counts().tolist()) for s in output.stages if s.layer in variant.prune_layers]
    return [
        GridPrediction(
            scores=scores[index],
            kind=output.kind,
            tokens=TokenReport(
                grid_hw,
                np.ascontiguousarray(by_cell[index, :, :, 0]),
                np.ascontiguousarray(by_cell[index, :, :, 1]),
                layout.num_tokens,
                tuple((layer, counts[index]) for layer, counts in kept),
            ),
            cell_px=output.cell_px,
            class_mix=None if mixes is None else mixes[index],
        )
        for index in range(len(scores))
    ]


def torch_device(name: str, precision: str = 'float32') -> torch.device:
    """Return the device `cpu`, `cuda` or `cuda:N`. Raises ValueError if it, or the precision on it, cannot be had."""
    kind, index = split_device(name, ('cpu', 'cuda'))
    device = torch.device('cpu') if kind == 'cpu' else torch.device(kind, index)
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'device {name!r}: this PyTorch ({torch.__version__}) sees no CUDA device')
    if device.type == 'cuda' and index >= torch.cuda.device_count():
        raise ValueError(f'device {name!r}: expected an index below {torch.cuda.device_count()}')
    if device.type == 'cpu' and precision == 'float16':
        raise ValueError('precision float16 needs a CUDA device; legal on cpu are float32, bfloat16')
    return device
