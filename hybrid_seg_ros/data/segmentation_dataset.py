"""What every dataset offers, named samples of an image and its labels, and how the files of both are paired."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional, Protocol

import numpy as np

from hybrid_seg_ros.data.image_files import IMAGE_SUFFIXES, LABEL_SUFFIXES, DatasetError, read_image, same_name
from hybrid_seg_ros.data.label_codes import LabelCode
from hybrid_seg_ros.label_space import LabelSpace

PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Sample:
    """`image` (H, W, 3) uint8 RGB and `labels` (H, W) uint8, 255 = unlabelled."""

    name: str
    image: np.ndarray
    labels: np.ndarray


class SegmentationDataset(Protocol):
    """An indexed set of samples; `problems` says which files have no partner and were left out."""

    classes: LabelSpace
    problems: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Read one sample. Raises DatasetError that names the file."""


class FilePair(NamedTuple):
    """An image and its label file; `name` is what both are called, below their folders and without suffix."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class PairedFiles:
    """The pairs of a split, sorted by name, and a line for each file that has no partner."""

    pairs: tuple[FilePair, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class FileDataset:
    """Pairs of an image file and a label file, and how the label files' values become class ids."""

    classes: LabelSpace
    files: PairedFiles
    code: LabelCode

    @property
    def problems(self) -> tuple[str, ...]:
        """Which files have no partner."""
        return self.files.problems

    def __len__(self) -> int:
        return len(self.files.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.files.pairs[index]
        image = read_image(pair.image)
        labels = self.code.read(pair.labels)
        if image.shape[:2] != labels.shape:
            raise DatasetError(
                f'{pair.labels}: expected labels of the size of {pair.image.name}, {_size(image)}, got {_size(labels)}'
            )
        return Sample(pair.name, image, labels)


def describe_problems(problems: Sequence[str], shown: int = PROBLEMS_SHOWN) -> str:
    """Say how many problems there are, and list the first ones, one a line."""
    noun = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
    head = f'{noun}:' if len(problems) <= shown else f'{noun}, the first {shown}:'
    return '\n  '.join([head, *problems[:shown]])


@dataclass(frozen=True)
class FoundFiles:
    """The files of a folder by name: path below the folder, without suffix and without `ending`, in `same_name`'s form.

    Hidden files and folders are left out; a link that leads back to a folder above is not followed.
    """

    folder: Path
    by_name: dict[str, list[Path]]
    ending: str = ''

    @classmethod
    def images(cls, folder: Path, ending: str = '') -> 'FoundFiles':
        """Find images; those whose name lacks `ending` are left aside. Raises DatasetError if there are none."""
        found = cls._find(folder, IMAGE_SUFFIXES, ending)
        if not found.by_name:
            raise DatasetError(f'{folder}: no images *{ending}; understood are {", ".join(IMAGE_SUFFIXES)}')
        return found

    @classmethod
    def labels(cls, folder: Path, ending: str = '') -> 'FoundFiles':
        """Find label files; those whose name lacks `ending` are left aside."""
        return cls._find(folder, LABEL_SUFFIXES, ending)

    @classmethod
    def _find(cls, folder: Path, suffixes: Sequence[str], ending: str) -> 'FoundFiles':
        if not folder.is_dir():
            raise DatasetError(f'{folder}: no such folder')
        by_name: dict[str, list[Path]] = {}
        for parent, folders, files in os.walk(folder, followlinks=True):
            folders[:] = (name for name in folders if not name.startswith('.') and not _leads_back(Path(parent, name)))
            for path in (Path(parent, name) for name in files if not name.startswith('.')):
                if path.suffix.lower() in suffixes and path.stem.endswith(ending):
                    name = same_name(path.relative_to(folder).with_suffix('').as_posix())
                    by_name.setdefault(name.removesuffix(ending), []).append(path)
        return cls(folder, by_name, ending)


def _leads_back(folder: Path) -> bool:
    """Tell whether a folder is a link to one of those that it was reached through."""
    return folder.is_symlink() and any(folder.samefile(parent) for parent in folder.absolute().parents)


def pair_files(images: FoundFiles, labels: FoundFiles, names: Optional[Iterable[str]] = None) -> PairedFiles:
    """Pair files of one name; only those of `names`, if given. Two files of one name are a problem, not a choice."""
    chosen = sorted({*images.by_name, *labels.by_name}) if names is None else list(names)
    pairs, problems = [], []
    for name in chosen:
        found = images.by_name.get(name, []), labels.by_name.get(name, [])
        if len(found[0]) == len(found[1]) == 1:
            pairs.append(FilePair(name, found[0][0], found[1][0]))
            continue
        for files in found:
            if len(files) > 1:
                problems.append(f'{files[0].parent}: expected one file for {name}, got '
                                + ' and '.join(sorted(path.name for path in files)))  # fmt: skip
        if not found[0]:
            listed = f'{found[1][0]}: ' if found[1] else f'{name}: '
            problems.append(f'{listed}no image {images.folder / name}{images.ending}.*')
        if not found[1]:
            listed = f'{found[0][0]}: ' if found[0] else f'{name}: '
            problems.append(f'{listed}no label file {labels.folder / name}{labels.ending}.png{_lossy(labels, name)}')
    return PairedFiles(tuple(pairs), tuple(problems))


def _lossy(labels: FoundFiles, name: str) -> str:
    """Say if there is a label file in a lossy format."""
    there = [suffix for suffix in IMAGE_SUFFIXES if Path(f'{labels.folder / name}{labels.ending}{suffix}').is_file()]
    return f' ({there[0]} is there, but labels are {", ".join(LABEL_SUFFIXES)})' if there else ''


def read_split_list(path: Path) -> list[str]:
    """Return the lines of a split's list, blank ones and comments (#) aside.

    Raises DatasetError if there are none or one repeats.
    """
    lines = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines()]
    lines = [line for line in lines if line and not line.startswith('#')]
    if not lines:
        raise DatasetError(f'{path}: expected one image a line, got none')
    if len(set(lines)) != len(lines):
        repeated = next(line for line in lines if lines.count(line) > 1)
        raise DatasetError(f'{path}: {repeated} is listed more than once')
    return lines


def listed_name(line: str) -> str:
    """Return the name of a listed image, which may come with its suffix."""
    path = Path(same_name(line))
    return (path.with_suffix('') if path.suffix.lower() in IMAGE_SUFFIXES else path).as_posix()


def _size(picture: np.ndarray) -> str:
    return f'{picture.shape[1]}x{picture.shape[0]}'
