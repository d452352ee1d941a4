"""LiveSettings: what may change between two frames, and what it asks of the pipeline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hybrid_seg_ros.inference.latency_budget import LatencyTarget
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.inference.point_keeper import Wanted
from hybrid_seg_ros.model_spec import ModelSpec, ModelSpecError, TokenBudget, Variant


@dataclass(frozen=True)
class LiveSettings:
    """The live parameters, as `parameters.py` describes them."""

    variant: str
    keep: float
    threshold: float
    merge_by: str
    look_every: int
    target_latency_ms: float
    target_fps: float
    overlay_alpha: float
    overlay_legend: bool
    enabled: bool

    @property
    def target(self) -> LatencyTarget:
        """The latency budget; false where there is none."""
        return LatencyTarget(float(self.target_latency_ms), float(self.target_fps))

    def wanted(self, spec: ModelSpec) -> Wanted:
        """Return what a model is to run. Raises ModelSpecError if it cannot."""
        return Wanted(*self.operating_point(spec), self.target)

    def operating_point(self, spec: ModelSpec) -> tuple[Variant, TokenBudget]:
        """Return variant and token budget for a model. Raises ModelSpecError if it cannot run the variant."""
        variant = Variant.parse(self.variant) if self.variant else spec.variant
        spec.check_variant(variant)
        if self.keep > 0:
            return variant, choose_budget(spec.budget, keep=float(self.keep) if self.keep <= 1 else round(self.keep))
        if self.threshold > 0:
            return variant, choose_budget(spec.budget, threshold=self.threshold)
        return variant, dataclasses.replace(spec.budget, keep=None) if self.keep == 0 else spec.budget


def variant_problem(value: str) -> str:
    """Return what is wrong with the name of a variant, '' if nothing is or it is empty."""
    try:
        if value:
            Variant.parse(value)
    except ModelSpecError as error:
        return str(error)
    return ''


def keep_problem(value: float) -> str:
    """Return what is wrong with a value of `keep`, '' if nothing is."""
    if value in (-1.0, 0.0) or 0.0 < value <= 1.0 or (value >= 2.0 and value == round(value)):
        return ''
    return f"keep: expected -1 (the model's own), 0 (by threshold), a fraction up to 1.0 or a whole count, got {value}"

