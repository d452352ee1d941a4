"""The form that the paper and the official code give a model, whatever form it has here."""

from __future__ import annotations

import dataclasses

from hybrid_seg_ros.model_spec import ModelSpec

PAPER_FORM = {'policy': 'efficientnet_lite0', 'auxiliary_head': 'atm', 'refinement': 'none'}


def paper_form(spec: ModelSpec) -> ModelSpec:
    """Return a spec in the paper's form: same backbone, classes, head and size.

    A model that has this form already is returned as it is; the weights of another do not fit, and are left out.
    """
    form = dataclasses.replace(spec, **PAPER_FORM)
    return form if form == spec else dataclasses.replace(form, weights=None, sha256=None)
