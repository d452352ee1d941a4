"""CamVid street video, 11 classes (Brostow, Fauqueur, Cipolla 2009), as published and as passed on since."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.label_codes import ColorCode, IdCode
from hybrid_seg_ros.data.segmentation_dataset import (
    FileDataset,
    FilePair,
    FoundFiles,
    PairedFiles,
    listed_name,
    pair_files,
    read_split_list,
)
from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace

VOID = 11
"""The id of pixels without a label in label files of ids."""

CAMVID_CLASSES = LabelSpace(
    names=(
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist',
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip

CAMVID_IDS = IdCode.plain(len(CAMVID_CLASSES), unlabelled=(VOID,))

_COLORS_OF_CLASSES = {
    'sky': {'Sky': (128, 128, 128)},
    'building': {
        'Building': (128, 0, 0), 'Archway': (192, 0, 128), 'Bridge': (0, 128, 64), 'Tunnel': (64, 0, 64),
        'Wall': (64, 192, 0),
    },
    'pole': {'Column_Pole': (192, 192, 128), 'TrafficCone': (0, 0, 64)},
    'road': {'Road': (128, 64, 128), 'LaneMkgsDriv': (128, 0, 192), 'LaneMkgsNonDriv': (192, 0, 64)},
    'pavement': {'Sidewalk': (0, 0, 192), 'ParkingBlock': (64, 192, 128), 'RoadShoulder': (128, 128, 192)},
    'tree': {'Tree': (128, 128, 0), 'VegetationMisc': (192, 192, 0)},
    'sign symbol': {'SignSymbol': (192, 128, 128), 'Misc_Text': (128, 128, 64), 'TrafficLight': (0, 64, 64)},
    'fence': {'Fence': (64, 64, 128)},
    'car': {
        'Car': (64, 0, 128), 'SUVPickupTruck': (64, 128, 192), 'Truck_Bus': (192, 128, 192), 'Train': (192, 64, 128),
        'OtherMoving': (128, 64, 64),
    },
    'pedestrian': {
        'Pedestrian': (64, 64, 0), 'Child': (192, 128, 64), 'CartLuggagePram': (64, 0, 192), 'Animal': (64, 128, 64),
    },
    'bicyclist': {'Bicyclist': (0, 128, 192), 'MotorcycleScooter': (192, 0, 192)},
}  # fmt: skip
"""The 31 classes of the original release, in the groups of SegNet (Badrinarayanan et al., 2017)."""

CAMVID_COLORS = ColorCode({
    **{color: CAMVID_CLASSES.names.index(name) for name, colors in _COLORS_OF_CLASSES.items()
       for color in colors.values()},
    (0, 0, 0): UNLABELLED,
})  # fmt: skip
"""The code of the original release's label files `*_L.png`."""

ORIGINAL_IMAGES, ORIGINAL_LABELS = '701_StillsRaw_full', 'LabeledApproved_full'

LAYOUTS = (
    'SPLIT/images and SPLIT/labels (ids)',
    'SPLIT and SPLITannot (ids; SegNet tutorial)',
    'SPLIT.txt with an image and a label file per line (ids; SegNet tutorial)',
    'SPLIT and SPLIT_labels (colours, *_L.png)',
    f'{ORIGINAL_IMAGES} and {ORIGINAL_LABELS} (colours, *_L.png; original release), with SPLIT.txt, one frame per line',
)
"""Below the root; SPLIT is train, val or test."""


def open_camvid(root: Path, split: str) -> FileDataset:
    """Open a split of CamVid in any of `LAYOUTS`. Raises DatasetError that lists them."""
    files, code = _find_ids(root, split), CAMVID_IDS
    if files is None:
        files, code = _find_colors(root, split), CAMVID_COLORS
    if files is None:
        known = '\n  '.join(LAYOUTS)
        raise DatasetError(f'CamVid: no split {split!r} in {root}; the layouts understood are\n  {known}')
    return FileDataset(CAMVID_CLASSES, files, code)


def _find_ids(root: Path, split: str) -> Optional[PairedFiles]:
    if (root / split / 'images').is_dir():
        return pair_files(FoundFiles.images(root / split / 'images'), FoundFiles.labels(root / split / 'labels'))
    if (root / f'{split}annot').is_dir():
        return pair_files(FoundFiles.images(root / split), FoundFiles.labels(root / f'{split}annot'))
    list_path = root / f'{split}.txt'
    if list_path.is_file() and not (root / ORIGINAL_IMAGES).is_dir():
        return _pair_listed(root, list_path)
    return None


def _find_colors(root: Path, split: str) -> Optional[PairedFiles]:
    if (root / f'{split}_labels').is_dir():
        return pair_files(FoundFiles.images(root / split), FoundFiles.labels(root / f'{split}_labels', '_L'))
    if not (root / ORIGINAL_IMAGES).is_dir():
        return None
    images = FoundFiles.images(root / ORIGINAL_IMAGES)
    labels = FoundFiles.labels(root / ORIGINAL_LABELS, '_L')
    list_path = root / f'{split}.txt'
    if not list_path.is_file():
        raise DatasetError(
            f'{list_path}: no such file; the original CamVid comes without a split: list the frames of {split!r} in '
            f'that file, one per line, such as {min(images.by_name)}'
        )
    return pair_files(images, labels, (Path(listed_name(line)).name for line in read_split_list(list_path)))


def _pair_listed(root: Path, list_path: Path) -> PairedFiles:
    """Pair the two columns of a list, whose paths may start with the folder that its author had them in."""
    pairs, problems = [], []
    for line in read_split_list(list_path):
        columns = line.split()
        if len(columns) != 2:
            raise DatasetError(f'{list_path}: expected lines of an image and a label file, got {line!r}')
        image, labels = (_locate(root, column) for column in columns)
        problems += [f'{list_path.name} lists {column}: no such file in {root}'
                     for column, path in zip(columns, (image, labels)) if path is None]  # fmt: skip
        if image is not None and labels is not None:
            pairs.append(FilePair(image.stem, image, labels))
    return PairedFiles(tuple(sorted(pairs)), tuple(problems))


def _locate(root: Path, listed: str) -> Optional[Path]:
    parts = [part for part in Path(listed).parts if part != '/']
    candidates = (root.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in candidates if path.is_file()), None)
