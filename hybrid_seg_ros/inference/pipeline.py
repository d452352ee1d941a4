"""SegmentationPipeline: an RGB image in, a Segmentation out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Optional, Union

import numpy as np

from hybrid_seg_ros.inference.backends import AUTO, Backend, create_backend
from hybrid_seg_ros.inference.backends.automatic import choose_placement
from hybrid_seg_ros.inference.film import LOOK_EVERY, Film
from hybrid_seg_ros.inference.postprocess import postprocess
from hybrid_seg_ros.inference.preprocess import FrameGeometry, check_image, fit_geometry, preprocess, resize_image
from hybrid_seg_ros.inference.sliding_window import plan_crops, postprocess_crops, stack_reports
from hybrid_seg_ros.model_spec import Keep, ModelSpec, TokenBudget, Variant, Windows
from hybrid_seg_ros.network.token_merging import count_merged_windows
from hybrid_seg_ros.process_memory import keep_freed_memory
from hybrid_seg_ros.segmentation import GridPrediction, Segmentation, StageTimings, TokenReport

OUTPUT_SIZES = ('image', 'network')


class SegmentationPipeline:
    """Segmentation in three timed steps: preprocess, backend, postprocess; of the whole frame or with a sliding window.

    Call it from one thread at a time; `set_operating_point` may be called from another.
    """

    def __init__(
        self, spec: ModelSpec, backend: Backend, backend_name: str, precision: str,
        variant: Optional[Variant] = None, budget: Optional[TokenBudget] = None, output_size: str = 'image',
    ) -> None:  # fmt: skip
        if output_size not in OUTPUT_SIZES:
            raise ValueError(f'unknown output_size {output_size!r}; legal are {", ".join(OUTPUT_SIZES)}')
        self.spec = spec
        self.backend_name, self.precision = backend_name, precision
        self._backend = backend
        self._output_size = output_size
        self._point: tuple[Variant, TokenBudget, dict[int, int]] = (spec.variant, spec.budget, {})
        self.with_confidence = True
        """Whether results must have their confidence; without it a label map takes a quarter less time."""
        self.set_operating_point(variant, budget)

    @property
    def device_name(self) -> str:
        """Device that the backend runs on, for people to read."""
        return self._backend.device_name

    @property
    def variant(self) -> Variant:
        """Which tokens merge and leave early."""
        return self._point[0]

    @property
    def budget(self) -> TokenBudget:
        """How many tokens merging and pruning leave."""
        return self._point[1]

    @property
    def operating_point(self) -> tuple[Variant, TokenBudget]:
        """Variant and token budget of the next image."""
        return self._point[:2]

    def set_operating_point(
        self, variant: Union[Variant, str, None] = None, budget: Optional[TokenBudget] = None
    ) -> None:  # fmt: skip
        """Change variant, which may be a name, or budget; takes effect at the next image.

        Raises ValueError, changing nothing.
        """
        variant = Variant.parse(variant) if isinstance(variant, str) else variant or self.variant
        budget = budget or self.budget
        if not isinstance(budget, TokenBudget):
            raise ValueError(f'budget: expected a TokenBudget, as dataclasses.replace(pipeline.budget, keep=0.5), '
                             f'got {budget!r}')  # fmt: skip
        self.check_operating_point(variant, budget)
        grid_hw = self.spec.backbone.grid_hw(self.spec.network_size_hw)
        merged_windows = count_merged_windows(grid_hw, budget.windows) if variant.merges else {}
        self._point = (variant, budget, merged_windows)  # one assignment, so that a running image sees all or nothing

    def check_operating_point(self, variant: Variant, budget: TokenBudget) -> None:
        """Raise ValueError if the model, or the graphs that the backend was given, cannot run it."""
        check_operating_point(self.spec, variant, budget)
        self._backend.check(self.spec.network_size_hw, variant, budget)

    def output_size_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the label map of an image of `image_hw`.

        'image': that of the image; 'network': that of the image inside the network, where this is smaller.
        """
        if self.spec.inference == 'sliding':
            content_hw = plan_crops(image_hw, self.spec.sliding_window).resized_hw
        else:
            content_hw = fit_geometry(image_hw, self.spec).content_hw
        if self._output_size == 'image' or content_hw[0] >= image_hw[0] or content_hw[1] >= image_hw[1]:
            return (image_hw[0], image_hw[1])
        return content_hw

    def __call__(self, image: np.ndarray, film: Optional[Film] = None, stamp_s: float = 0.0) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8. Raises ValueError for anything else.

        With a `film` it is the next frame of a camera, taken at `stamp_s`, and the frame before may say which windows
        merge. With a sliding window each frame is for itself.
        """
        if self.spec.inference == 'sliding':
            check_image(image)
            return self._segment_sliding(image, *self.operating_point)
        return self.segment_batch([image], None if film is None else [film], [stamp_s])[0]

    def segment_batch(
        self, images: Sequence[np.ndarray], films: Optional[Sequence[Film]] = None, stamps_s: Sequence[float] = (),
    ) -> list[Segmentation]:  # fmt: skip
        """Segment RGB images (H, W, 3) uint8 of any sizes, each as a call would, in one run of the network.

        With a sliding window, one after the other. The timings are those of the batch, shared out evenly. `films` and
        `stamps_s`, one per image, are as of a call; where one of them needs the policy network it rules all.
        """
        for image in images:
            check_image(image)
        if not images or self.spec.inference == 'sliding':
            return [self(image) for image in images]
        variant, budget, merged_windows = self._point
        start_s = time.perf_counter()
        geometries = [fit_geometry(image.shape[:2], self.spec) for image in images]
        inputs = np.stack([preprocess(image, each, self.spec) for image, each in zip(images, geometries)])
        films = films if films is not None and variant.merges else []
        scores = self._scores_of_films(films, inputs, geometries, stamps_s, merged_windows) if films else None
        ready_s = time.perf_counter()
        predictions = self._backend.infer(inputs, variant, budget, scores)
        inferred_s = time.perf_counter()
        merged_by = '' if not variant.merges else 'policy' if scores is None else 'previous'
        # a film scores windows by it
        with_confidence = self.with_confidence or any(film.merge_by != 'policy' for film in films)
        outputs = [
            self._complete(prediction, each, merged_by, with_confidence)
            for prediction, each in zip(predictions, geometries)
        ]
        for film, output in zip(films, outputs):
            film.remember(*output)
        times_s = (start_s, ready_s, inferred_s, time.perf_counter())
        timings = StageTimings(*(np.diff(times_s) * 1e3 / len(images)).tolist())
        return [Segmentation(*output, timings) for output in outputs]

    def stream(
        self, images: Iterable[np.ndarray], stamps_s: Optional[Iterable[float]] = None, merge_by: str = 'policy',
        look_every: int = LOOK_EVERY,
    ) -> Iterator[Segmentation]:  # fmt: skip
        """Segment the frames of one camera in order, each as a call with a film does; see `Film` for the options.

        `stamps_s` are their times in seconds; without any they are a tenth of a second apart. With `merge_by` 'policy'
        each is segmented as if it were alone.
        """
        film = Film(merge_by, look_every)
        stamps = (index / 10 for index in count()) if stamps_s is None else iter(stamps_s)
        for index, image in enumerate(images):
            stamp_s = next(stamps, None)
            if stamp_s is None:
                raise ValueError(f'stamps_s: expected one for each image, got {index}')
            yield self(image, film, stamp_s)

    def _complete(
        self, prediction: GridPrediction, geometry: FrameGeometry, merged_by: str, with_confidence: bool
    ) -> tuple[np.ndarray, Optional[np.ndarray], TokenReport]:
        """Return labels, confidence and token report of a whole frame."""
        output_hw = self.output_size_hw(geometry.image_hw)
        labels, confidence = postprocess(prediction, geometry, output_hw, with_confidence)
        area = geometry.area(prediction.tokens.grid_hw, self.spec.backbone.patch_size)
        return labels, confidence, dataclasses.replace(prediction.tokens, areas=(area,), merged_by=merged_by)

    def _scores_of_films(
        self, films: Sequence[Film], inputs: np.ndarray, geometries: Sequence[FrameGeometry],
        stamps_s: Sequence[float], merged_windows: dict[int, int],
    ) -> Optional[dict[int, np.ndarray]]:  # fmt: skip
        """Return what the frames before say of windows, as `Backend.infer` takes it; None where any says nothing."""
        patch_size = self.spec.backbone.patch_size
        each = [
            film.scores(network_input, geometry, patch_size, stamp_s, merged_windows)
            for film, network_input, geometry, stamp_s in zip(films, inputs, geometries, stamps_s)
        ]
        if any(one is None for one in each):
            return None
        return {window: np.stack([one[window] for one in each]) for window in merged_windows}

    def _segment_sliding(self, image: np.ndarray, variant: Variant, budget: TokenBudget) -> Segmentation:
        start_s = time.perf_counter()
        plan = plan_crops(image.shape[:2], self.spec.sliding_window)
        crops = plan.crops(resize_image(image, plan.resized_hw))
        ready_s = time.perf_counter()
        predictions = [prediction.on_host() for prediction in self._backend.infer(crops, variant, budget)]
        inferred_s = time.perf_counter()
        labels, confidence = postprocess_crops(predictions, plan, self.output_size_hw(plan.image_hw))
        tokens = stack_reports(predictions, plan, self.spec.backbone.patch_size)
        times_s = (start_s, ready_s, inferred_s, time.perf_counter())
        return Segmentation(labels, confidence, tokens, StageTimings(*(np.diff(times_s) * 1e3).tolist()))

    def warm_up(
        self, variant: Optional[Variant] = None, budget: Optional[TokenBudget] = None, batch: int = 1
    ) -> None:  # fmt: skip
        """Load what an operating point, the present one by default, needs, and run once on grey images.

        It makes the first real image, or the first `batch` images at once, as fast as the others. May be called from
        another thread while images are segmented at other operating points.
        """
        point = (variant or self.variant, budget or self.budget)
        self.check_operating_point(*point)
        self._backend.warm_up(self.spec.network_size_hw, *point)
        if batch > 1 and self.spec.inference == 'whole':
            self._backend.warm_up(self.spec.network_size_hw, *point, batch)

    def is_ready(self, variant: Variant, budget: TokenBudget) -> bool:
        """Say whether the next image could be segmented at this operating point without loading anything first."""
        return self._backend.is_ready(self.spec.network_size_hw, variant, budget)

    def keep_open(self, count: int) -> None:
        """Keep what at least `count` operating points need loaded at once."""
        self._backend.keep_open(count)

    def time_inference(self, variant: Variant, budget: TokenBudget) -> float:
        """Return the milliseconds that the network takes for one grey image at an operating point, once."""
        image = np.full((1, *self.spec.network_size_hw, 3), 128, np.uint8)
        start_s = time.perf_counter()
        for prediction in self._backend.infer(image, variant, budget):
            prediction.on_host()
        return (time.perf_counter() - start_s) * 1e3

    def close(self) -> None:
        """Free the device."""
        self._backend.close()


def load_pipeline(
    model: Union[str, Path], backend: str = AUTO, device: str = AUTO, precision: str = AUTO,
    variant: Optional[str] = None, keep: Union[Keep, Sequence[Keep], None] = None, threshold: Optional[float] = None,
    output_size: str = 'image', inference: Optional[str] = None, graph: Union[str, Path, None] = None,
    cache_dir: Union[str, Path, None] = None,
) -> SegmentationPipeline:  # fmt: skip
    """Load a model (a YAML file, or a name in models/) into a pipeline; whatever is not given is the spec's own.

    `backend`, `device` and `precision` that are not given are what is fastest on this machine (the log says what was
    taken), so that labels may differ a little from machine to machine; in 'pytorch', 'cpu', 'float32' they do not.

    `variant` is a name such as 'hybrid@8'. `keep` (count or fraction per pruning layer) and `threshold` choose how
    pruning decides; give one of them. `inference` is 'whole' (the frame at the
    spec's input size) or 'sliding'. `graph` is a file that `hybrid_seg export` wrote, which sets variant and budget
    where they are not given; without it, backends other than PyTorch export what they need into `cache_dir` (default:
    the user's cache folder). Raises FileNotFoundError, or ValueError that says what was expected.
    """
    spec = ModelSpec.load(model)
    if inference is not None:
        spec = dataclasses.replace(spec, inference=inference)
    exported = None
    if graph is not None and backend != 'pytorch':
        from hybrid_seg_ros.inference.backends.graph_source import read_graphs, with_operating_point

        exported = read_graphs(Path(graph)).info
        spec = with_operating_point(spec, exported)
    budget = choose_budget(spec.budget, keep, threshold)
    chosen = Variant.parse(variant) if variant is not None else spec.variant
    spec.check_variant(chosen)
    placement = choose_placement(
        backend, device, precision, None if exported is None else Path(graph), exported and exported.precision
    )  # fmt: skip
    keep_freed_memory()
    runs = create_backend(placement.backend, spec, placement.device, placement.precision, graph, cache_dir)
    return SegmentationPipeline(spec, runs, placement.backend, placement.precision, chosen, budget, output_size)


def check_operating_point(spec: ModelSpec, variant: Variant, budget: TokenBudget) -> None:
    """Raise ValueError if a model cannot run a variant with a token budget, whatever the backend."""
    spec.check_variant(variant)
    for stage in range(len(variant.prune_layers)):
        budget.keep_at(stage)
    if variant.merges:
        spec.check_windows(budget)
        count_merged_windows(spec.backbone.grid_hw(spec.network_size_hw), budget.windows)


def choose_budget(
    budget: TokenBudget, keep: Union[Keep, Sequence[Keep], None] = None, threshold: Optional[float] = None,
    merged_windows: Union[Keep, Windows, None] = None,
) -> TokenBudget:  # fmt: skip
    """Return `budget` with pruning by fixed keep or by threshold, and a number of merged windows, where given."""
    if keep is not None and threshold is not None:
        raise ValueError(f'keep: expected it (a fixed number) or a threshold, not both; got {keep!r} and {threshold!r}')
    if merged_windows is not None:
        budget = dataclasses.replace(budget, merged_windows=merged_windows)
    if keep is not None:
        return dataclasses.replace(budget, keep=keep)
    if threshold is not None:
        return dataclasses.replace(budget, keep=None, threshold=float(threshold))
    return budget
