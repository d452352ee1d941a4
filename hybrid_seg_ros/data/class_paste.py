"""Pasting rare classes from one view into another, so that few frames show them in many places.

Source: ClassMix (Olsson et al., WACV 2021), here between labelled views and for chosen classes only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybrid_seg_ros.data.segmentation_dataset import Sample


def paste_classes(target: Sample, donor: Sample, class_ids: Sequence[int], rng: np.random.Generator) -> Sample:
    """Return `target` with the pixels of a random half of the donor's `class_ids` pasted over it, at least of one.

    Both views have one size. A donor that shows none of the classes changes nothing.
    """
    if target.labels.shape != donor.labels.shape:
        raise ValueError(f'expected views of one size, got {target.labels.shape} and {donor.labels.shape}')
    present = [index for index in class_ids if (donor.labels == index).any()]
    if not present:
        return target
    chosen = rng.permutation(present)[: (len(present) + 1) // 2]
    mask = np.isin(donor.labels, chosen)
    return Sample(
        target.name, np.where(mask[:, :, None], donor.image, target.image), np.where(mask, donor.labels, target.labels)
    )
