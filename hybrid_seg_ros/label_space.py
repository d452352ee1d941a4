"""What the class ids mean: names, colours, and the id of pixels that carry no label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNLABELLED = 255
"""Class id of pixels without a label, in every label map of this package (as in Nav2 and Cityscapes)."""


@dataclass(frozen=True)
class LabelSpace:
    """An ordered list of classes; class id = position in the list.

    `palette` holds one RGB colour (0-255) per class. At most 255 classes: id 255 means unlabelled.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= UNLABELLED:
            raise ValueError(f'expected 1 to {UNLABELLED} classes, got {len(self.names)}')
        if len(self.palette) != len(self.names):
            raise ValueError(f'expected one colour per class: {len(self.names)} classes, {len(self.palette)} colours')
        if len(set(self.names)) != len(self.names):
            raise ValueError(f'class names repeat: {sorted(n for n in self.names if self.names.count(n) > 1)}')
        for name, color in zip(self.names, self.palette):
            if len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
                raise ValueError(f'class {name!r}: expected a colour [R, G, B] of integers 0 to 255, got {color!r}')

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_entries(cls, entries: Sequence[Mapping[str, Any]]) -> 'LabelSpace':
        """Build from `[{name: sky, color: [128, 128, 128]}, ...]`, as model and dataset YAML files hold it.

        Colours may be left out of every entry; distinct ones are then generated.
        """
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise ValueError(f'expected a list of classes, got {type(entries).__name__}')
        for entry in entries:
            if not isinstance(entry, Mapping) or not set(entry) <= {'name', 'color'} or 'name' not in entry:
                raise ValueError(f'expected a class as {{name: NAME, color: [R, G, B]}}, got {entry!r}')
        names = tuple(str(entry['name']) for entry in entries)
        if any('color' in entry for entry in entries):
            missing = [str(entry['name']) for entry in entries if 'color' not in entry]
            if missing:
                raise ValueError(f'give every class a colour or none; without one: {missing}')
            return cls(names, tuple(tuple(entry['color']) for entry in entries))
        return cls(names, distinct_colors(len(names)))

    def to_entries(self) -> list[dict[str, Any]]:
        """Return the inverse of `from_entries`."""
        return [{'name': name, 'color': list(color)} for name, color in zip(self.names, self.palette)]

    def color_table(self) -> np.ndarray:
        """Return the colour of each possible label: (256, 3) uint8 RGB; ids that are no class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.palette
        return table

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Turn a label map (H, W) uint8 into a picture (H, W, 3) uint8 RGB."""
        if labels.dtype != np.uint8 or labels.ndim != 2:
            raise ValueError(f'expected labels (H, W) uint8, got {labels.shape} {labels.dtype}')
        return np.take(self.color_table(), labels, axis=0, mode='clip')


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return `count` distinct RGB colours: the bit-reversal colour map that PASCAL VOC uses, without its black."""
    colors = []
    for index in range(1, count + 1):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)
