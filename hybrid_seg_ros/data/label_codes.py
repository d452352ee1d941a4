"""What the values, or the colours, of a label file mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Optional, Protocol, Union

import numpy as np

from hybrid_seg_ros.data.image_files import DatasetError, read_label_colors, read_label_ids
from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace

Color = tuple[int, int, int]
MOST_ID = 0xFFFF
"""Label files have 16 bits at most."""
_NAMED = 5


class LabelCode(Protocol):
    """Reads a label file as class ids."""

    def read(self, path: Union[str, Path]) -> np.ndarray:
        """Return labels (H, W) uint8, 255 = unlabelled. Raises DatasetError that names file, value and legal ones."""


@dataclass(frozen=True)
class IdCode:
    """Files of one value per pixel; `class_of` maps each legal value to its class id, or to 255."""

    class_of: Mapping[int, int]
    hint: str = ''

    @classmethod
    def plain(cls, classes: int, unlabelled: Iterable[int] = (), hint: str = '') -> 'IdCode':
        """Return the code whose values are the class ids; 255 and the values of `unlabelled` carry no label."""
        class_of = {value: value for value in range(classes)}
        return cls({**class_of, **dict.fromkeys((*unlabelled, UNLABELLED), UNLABELLED)}, hint)

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.zeros(max(self.class_of) + 1, np.uint8)
        table[list(self.class_of)] = list(self.class_of.values())
        return table

    def read(self, path: Union[str, Path]) -> np.ndarray:
        """Return labels (H, W) uint8."""
        return self.decode(path, read_label_ids(path))

    def decode(self, path: Union[str, Path], values: np.ndarray) -> np.ndarray:
        """Turn values (H, W) uint8 or uint16 into labels (H, W) uint8; `path` is for the error."""
        counts = np.bincount(values.ravel())
        illegal = [int(value) for value in np.flatnonzero(counts) if int(value) not in self.class_of]
        if illegal:
            pixels = int(counts[illegal].sum())
            raise DatasetError(f'{path}: label {_list(illegal)} ({pixels} pixels); {self.legal()}{self.hint}')
        return self._table[values]

    def legal(self) -> str:
        """Say which values are legal."""
        labelled = [value for value, each in self.class_of.items() if each != UNLABELLED]
        unlabelled = [value for value, each in self.class_of.items() if each == UNLABELLED]
        return f'legal are {ranges(labelled)}' + (f', and {ranges(unlabelled)} for unlabelled' if unlabelled else '')


def label_id_code(classes: Optional[int] = None, void: Optional[int] = None) -> IdCode:
    """Return the code of ground truth that belongs to no data set: class ids below `classes`, and 255 for unlabelled.

    Without `classes`, ids up to 254 are legal. `void` is an id that means unlabelled, too, as CamVid's 11. A value
    that is not legal is a ValueError that names the file and the value. Raises ValueError for numbers out of range.
    """
    if classes is not None and not 1 <= classes <= UNLABELLED:
        raise ValueError(f'classes: expected 1 to {UNLABELLED}, got {classes}')
    if void is not None and not 0 <= void <= MOST_ID:
        raise ValueError(f'void: expected a label id, 0 to {MOST_ID}, got {void}')
    hint = '; --void takes one more id as unlabelled' if void is None else ''
    return IdCode.plain(UNLABELLED if classes is None else classes, () if void is None else (void,), hint)


@dataclass(frozen=True)
class ColorCode:
    """Files of one colour per pixel; `class_of` maps each legal RGB colour to its class id, or to 255."""

    class_of: Mapping[Color, int]
    hint: str = ''

    @classmethod
    def of_palette(cls, classes: LabelSpace, unlabelled: Iterable[Color] = (), hint: str = '') -> 'ColorCode':
        """Return the code of a palette's colours; those of `unlabelled` carry no label."""
        if len(set(classes.palette)) != len(classes.palette):
            repeated = sorted({color for color in classes.palette if classes.palette.count(color) > 1})
            raise DatasetError(f'labels by colour need one colour per class; several classes have {repeated}{hint}')
        class_of = {color: class_id for class_id, color in enumerate(classes.palette)}
        return cls({**class_of, **dict.fromkeys(unlabelled, UNLABELLED)}, hint)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        packed = pack_colors(np.array(list(self.class_of), np.uint8))
        order = np.argsort(packed)
        return packed[order], np.array(list(self.class_of.values()), np.uint8)[order]

    def read(self, path: Union[str, Path]) -> np.ndarray:
        """Return labels (H, W) uint8."""
        return self.decode(path, read_label_colors(path))

    def decode(self, path: Union[str, Path], colors: np.ndarray) -> np.ndarray:
        """Turn colours (H, W, 3) uint8 into labels (H, W) uint8; `path` is for the error."""
        if colors.ndim != 3:
            raise DatasetError(f'{path}: expected colours, got one value per pixel')
        packed = pack_colors(colors)
        legal, class_ids = self._sorted
        place = np.minimum(np.searchsorted(legal, packed), len(legal) - 1)
        wrong = legal[place] != packed
        if wrong.any():
            found = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in np.unique(packed[wrong])]
            raise DatasetError(f'{path}: colour {_list(found)} ({np.count_nonzero(wrong)} pixels); '
                               f'legal are {", ".join(map(str, self.class_of))}{self.hint}')  # fmt: skip
        return class_ids[place]


def pack_colors(colors: np.ndarray) -> np.ndarray:
    """Turn colours (..., 3) uint8 into one int32 each."""
    wide = colors.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def ranges(values: Iterable[int]) -> str:
    """Write whole numbers as text: 0 to 10 and 255."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    parts = [str(low) if low == high else f'{low} to {high}' for low, high in runs]
    return ' and '.join(parts) if len(parts) < 3 else f'{", ".join(parts[:-1])} and {parts[-1]}'


def _list(values: list) -> str:
    shown = ', '.join(str(value) for value in values[:_NAMED])
    return shown if len(values) <= _NAMED else f'{shown} and {len(values) - _NAMED} others'
