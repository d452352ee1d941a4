"""Ground truth from a folder of PNG files of class ids, each named by the stamp of the frame it belongs to."""

from __future__ import annotations

import re
from bisect import bisect_left
from pathlib import Path
from typing import Optional, Union

import numpy as np

from hybrid_seg_ros.data.image_files import list_images, read_label_ids
from hybrid_seg_ros.data.label_codes import label_id_code
from hybrid_seg_ros.ros.bags.ground_truth import UnreadableLabelsError
from hybrid_seg_ros.ros.cdr_header import NANOSECONDS

TOLERANCE_NS = 1_000_000
"""How far a file's stamp may be from the frame's, for names with fewer than nine decimals."""

_SECONDS = re.compile(r'(\d+)[._](\d{1,9})', re.ASCII)
_NANOSECONDS = re.compile(r'\d+', re.ASCII)


class LabelsFolderError(ValueError):
    """A folder that cannot be used as ground truth; the message names it, and the file."""


class FolderTruth:
    """The label images of a folder. They are read when asked for.

    A name is the frame's header stamp: nanoseconds (1700000000066666667.png), or seconds with their decimals behind a
    point or an underscore (1700000000.0667.png is 66.7 ms after 1700000000.png would be). A frame has the labels whose
    stamp is nearest, and within `tolerance_ns`. `classes` and `void` are as in `label_id_code`.
    """

    def __init__(
        self, folder: Union[str, Path], classes: Optional[int] = None, void: Optional[int] = None,
        tolerance_ns: int = TOLERANCE_NS,
    ) -> None:  # fmt: skip
        """Read the names. Raises LabelsFolderError for a folder without PNG files, or names that are no stamps."""
        self.name = str(folder)
        self._tolerance_ns = tolerance_ns
        self._code = label_id_code(classes, void)
        self._files = dict(sorted(_files_by_stamp(Path(folder)).items()))
        self.stamps_ns = tuple(self._files)

    def labels_at(self, stamp_ns: int) -> Optional[np.ndarray]:
        """Return the labels (H, W) uint8 of the frame with this stamp, 255 where unlabelled; None if it has none.

        Raises UnreadableLabelsError for what is no picture of one value per pixel, or another ValueError for illegal
        ids; both name the file.
        """
        place = bisect_left(self.stamps_ns, stamp_ns)
        nearest = min(self.stamps_ns[max(place - 1, 0) : place + 1], key=lambda each: abs(each - stamp_ns))
        if abs(nearest - stamp_ns) > self._tolerance_ns:
            return None
        file = self._files[nearest]
        try:
            values = read_label_ids(file)
        except ValueError as error:
            raise UnreadableLabelsError(str(error)) from error
        return self._code.decode(file, values)


def parse_stamp_ns(name: str) -> Optional[int]:
    """Return the stamp that a file name without its suffix stands for, in nanoseconds; None if it is no stamp."""
    if _NANOSECONDS.fullmatch(name):
        return int(name)
    seconds = _SECONDS.fullmatch(name)
    return None if seconds is None else int(seconds[1]) * NANOSECONDS + int(seconds[2].ljust(9, '0'))


def _files_by_stamp(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        raise LabelsFolderError(f'{folder}: expected a folder of label images')
    files = list_images(folder, ('.png',))
    if not files:
        raise LabelsFolderError(f'{folder}: expected label images, PNG files named by stamp, found none')
    by_stamp: dict[int, Path] = {}
    unnamed = [file for file in files if parse_stamp_ns(file.stem) is None]
    if unnamed:
        raise LabelsFolderError(
            f"{folder}: expected the frame's stamp as name, nanoseconds (1700000000066666667.png) or seconds "
            f'(1700000000.066666667.png, 1700000000_066666667.png), got {unnamed[0].name!r}'
            + (f' and {len(unnamed) - 1} more' if len(unnamed) > 1 else '')
        )
    for file in files:
        earlier = by_stamp.setdefault(parse_stamp_ns(file.stem), file)
        if earlier is not file:
            raise LabelsFolderError(f'{folder}: {earlier.name} and {file.name} are of the same stamp')
    return by_stamp
