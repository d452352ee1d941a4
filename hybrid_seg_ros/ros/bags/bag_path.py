"""Whether a path may be a bag: a rosbag2 folder, or one storage file."""

from __future__ import annotations

from pathlib import Path

from hybrid_seg_ros.ros.bags.bag_topic import BagError

STORAGE_SUFFIXES = ('.mcap', '.db3')


def check_bag_path(path: Path) -> None:
    """Raise BagError for a path that is not there, or that is no storage file."""
    if not path.exists():
        raise BagError(f'bag {path}: no such file or folder')
    if path.is_file() and path.suffix not in STORAGE_SUFFIXES:
        expected = ' or '.join(STORAGE_SUFFIXES)
        raise BagError(f'bag {path}: expected a rosbag2 folder or a {expected} file, got {path.name!r}')


def check_metadata(path: Path) -> None:
    """Raise BagError for a folder that has no metadata.yaml; the message names what can be opened in it."""
    if path.is_dir() and not (path / 'metadata.yaml').is_file():
        files = sorted(str(file) for file in path.iterdir() if file.suffix in STORAGE_SUFFIXES)
        hint = f'; its storage can be opened by itself: {", ".join(files)}' if files else ', .mcap or .db3 file'
        raise BagError(f'bag {path}: expected a rosbag2 folder, but it has no metadata.yaml{hint}')
