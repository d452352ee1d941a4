"""A team's own images and labels: two folders, and a YAML file that names the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Union

import numpy as np
import yaml

from hybrid_seg_ros.data.image_files import DatasetError, read_label_colors, read_label_ids_or_colors
from hybrid_seg_ros.data.label_codes import MOST_ID, Color, ColorCode, IdCode
from hybrid_seg_ros.data.segmentation_dataset import (
    FileDataset,
    FoundFiles,
    PairedFiles,
    listed_name,
    pair_files,
    read_split_list,
)
from hybrid_seg_ros.label_space import LabelSpace

CLASSES_FILE = 'classes.yaml'
LABEL_ENDINGS = ('_labels', '_label', '_mask', '_gt', '_L', '_segmentation', '-labels', '-label', '-mask', '-gt')
"""What may follow an image's name in the name of its label file."""

LAYOUTS = (
    'SPLIT/images and SPLIT/labels',
    'images/SPLIT and labels/SPLIT',
    'images and labels, with SPLIT.txt of one image per line',
)
"""Below the root, beside classes.yaml; SPLIT is train, val or any other word."""


@dataclass(frozen=True)
class FolderClasses:
    """The content of classes.yaml.

    `labels` says what label files hold: ids, colors, or either (files with colours by colour, single-channel ones by
    id), which is the default where the classes have colours.
    """

    classes: LabelSpace
    ignored_ids: tuple[int, ...] = ()
    ignored_colors: tuple[Color, ...] = ()
    labels: Literal['ids', 'colors', 'either'] = 'ids'

    @classmethod
    def load(cls, path: Path) -> 'FolderClasses':
        """Read a list of classes, or a mapping with `classes` and, if need be, `ignore` and `labels`.

        A class is a name, or `{name, color: [R, G, B]}`. `ignore` lists ids or colours of pixels without a label.
        `labels` is as above. Raises DatasetError.
        """
        if not path.is_file():
            raise DatasetError(f'{path}: no such file; it lists the classes: "- {{name: road, color: [90, 90, 90]}}"')
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8'))
            content = content if isinstance(content, Mapping) else {'classes': content}
            return cls._from_mapping(content)
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise DatasetError(f'{path}: {error}') from error

    @classmethod
    def _from_mapping(cls, content: Mapping[str, Any]) -> 'FolderClasses':
        unknown = sorted(str(key) for key in set(content) - {'classes', 'ignore', 'labels'})
        if unknown:
            raise ValueError(f'unknown keys {unknown}; legal are classes, ignore, labels')
        entries = content.get('classes')
        if not isinstance(entries, list):
            raise ValueError(f'classes: expected a list, got {type(entries).__name__}')
        entries = [{'name': entry} if isinstance(entry, str) else entry for entry in entries]
        classes = LabelSpace.from_entries(entries)
        colored = any('color' in entry for entry in entries)
        kind = content.get('labels', 'either' if colored else 'ids')
        if kind not in ('ids', 'colors', 'either') or (kind != 'ids' and not colored):
            raise ValueError(f'labels: expected ids, or colors or either if every class has its color, got {kind!r}')
        ids, colors = [], []
        ignored = content.get('ignore', [])
        for value in ignored if isinstance(ignored, list) else [ignored]:
            numbers = value if isinstance(value, list) else [value]
            most = 255 if len(numbers) == 3 else MOST_ID
            if len(numbers) not in (1, 3) or not all(type(n) is int and 0 <= n <= most for n in numbers):
                raise ValueError(f'ignore: expected a list of ids 0 to {MOST_ID} or colors [R, G, B], got {value!r}')
            if len(numbers) == 3:
                colors.append(tuple(numbers))
            else:
                ids.append(numbers[0])
        if colors and not colored:
            raise ValueError(f'ignore: expected ids, as no class has a color, got {list(colors[0])}')
        return cls(classes, tuple(ids), tuple(colors), kind)


@dataclass(frozen=True)
class FolderCode:
    """Reads label files by colour, by id, or with both codes each as it is."""

    ids: Optional[IdCode]
    colors: Optional[ColorCode]

    @classmethod
    def of(cls, described: FolderClasses) -> 'FolderCode':
        """Return the code that classes.yaml describes."""
        hint = f'; those of pixels without a label go under "ignore" in {CLASSES_FILE}'
        ids = IdCode.plain(len(described.classes), described.ignored_ids, hint)
        if described.labels == 'ids':
            return cls(ids, None)
        hint += ', and "labels: ids" there reads ids alone, of palette files the indices'
        colors = ColorCode.of_palette(described.classes, described.ignored_colors, hint)
        return cls(None if described.labels == 'colors' else ids, colors)

    def read(self, path: Union[str, Path]) -> np.ndarray:
        """Return labels (H, W) uint8."""
        if self.colors is None:
            return self.ids.read(path)
        if self.ids is None:
            colors = read_label_colors(path)
            return self.colors.decode(path, colors if colors.ndim == 3 else np.repeat(colors[:, :, None], 3, axis=2))
        values = read_label_ids_or_colors(path)
        return (self.ids if values.ndim == 2 else self.colors).decode(path, values)


def open_folder(root: Path, split: str) -> FileDataset:
    """Open a split in any of `LAYOUTS`. Raises DatasetError that lists them."""
    described = FolderClasses.load(root / CLASSES_FILE)
    return FileDataset(described.classes, _find(root, split), FolderCode.of(described))


def _find(root: Path, split: str) -> PairedFiles:
    for images, labels in ((f'{split}/images', f'{split}/labels'), (f'images/{split}', f'labels/{split}')):
        if (root / images).is_dir():
            return _pair(root / images, root / labels)
    list_path = root / f'{split}.txt'
    if (root / 'images').is_dir() and list_path.is_file():
        names = [listed_name(line).removeprefix('images/') for line in read_split_list(list_path)]
        return _pair(root / 'images', root / 'labels', names)
    known = '\n  '.join(LAYOUTS)
    raise DatasetError(f'no split {split!r} in {root}; the layouts understood are\n  {known}')


def _pair(images: Path, labels: Path, names: Optional[list[str]] = None) -> PairedFiles:
    """Pair files by name; where no label file has an image's name, one with a usual ending does."""
    found_images, found_labels = FoundFiles.images(images), FoundFiles.labels(labels)
    by_name: dict[str, list[Path]] = {}
    for name, paths in found_labels.by_name.items():
        by_name.setdefault(_image_name(name, found_images), []).extend(paths)
    return pair_files(found_images, FoundFiles(labels, by_name), names)


def _image_name(label_name: str, images: FoundFiles) -> str:
    stripped = (label_name.removesuffix(ending) for ending in LABEL_ENDINGS if label_name.endswith(ending))
    return next((name for name in (label_name, *stripped) if name in images.by_name), label_name)
