"""The storage files of a bag: a rosbag2 folder, or one .mcap or .db3 file, compressed as a whole or not.

What a file is, its first bytes say. metadata.yaml says no more than which files belong to the bag.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Union

import yaml
import zstandard

from hybrid_seg_ros.data.image_files import natural_key
from hybrid_seg_ros.ros.bags import db3_storage, mcap_storage
from hybrid_seg_ros.ros.bags.bag_content import BagError
from hybrid_seg_ros.ros.bags.db3_storage import Db3Storage
from hybrid_seg_ros.ros.bags.mcap_storage import McapStorage

_SUFFIXES = ('.mcap', '.db3')
_COMPRESSED_SUFFIXES = ('.zstd', '.zst')
"""The first is added by rosbag2 to a file that it compressed as a whole."""

Storage = Union[McapStorage, Db3Storage]

_logger = logging.getLogger(__name__)


def find_storage_files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files of the bag at `path`, bag_2 before bag_10, and the names of those that are missing.

    Raises BagError if there are none.
    """
    if not path.exists():
        raise BagError(f'bag {path}: no such file or folder')
    if not path.is_dir():
        return [path], []
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir(), key=lambda file: natural_key(file.name)):
        if file.is_file() and not file.name.startswith('.') and _suffix(file) in _SUFFIXES:
            files.setdefault(_plain_name(file), file)  # the plain one of a pair
    names = _names_in_metadata(path)
    if not files:
        there = ', '.join(sorted(file.name for file in path.iterdir())[:5]) or 'nothing'
        hint = f'its metadata.yaml wants {", ".join(names)} beside it' if names else f'it holds {there}'
        raise BagError(f'bag {path}: expected a rosbag2 folder with .mcap or .db3 files, found none; {hint}')
    missing = [name for name in names if name not in files]
    others = [name for name in files if name not in names]
    if others and names and not missing:
        _logger.warning('bag %s: %s left out, as metadata.yaml does; to be opened alone', path, ', '.join(others))
        return [files[name] for name in names], []
    if others and missing:
        _logger.warning('bag %s: %s read instead of %s', path, ', '.join(others), ', '.join(missing))
    elif len(others) > 1:
        _logger.warning('bag %s: read as one: %s', path, ', '.join(others))
    return list(files.values()), missing[len(others) :] if len(missing) < len(names) else []


def open_storages(files: Sequence[Path], stack: ExitStack) -> dict[str, Storage]:
    """Open the files; `stack` removes what is decompressed or set aside for that. Raises BagError for other files."""
    storages: dict[str, Storage] = {}
    scratch = cache(lambda: Path(stack.enter_context(TemporaryDirectory(prefix='hybrid_seg_bag_'))))
    for file in files:
        plain = file
        if _starts_with(file, zstandard.FRAME_HEADER):
            plain = scratch() / _plain_name(file)
            _decompress(file, plain)
        is_mcap, is_db3 = (_starts_with(plain, each.MAGIC) for each in (mcap_storage, db3_storage))
        if is_mcap or (_suffix(file) == '.mcap' and not is_db3):
            storages[file.name] = McapStorage(plain)
        elif is_db3 or _suffix(file) == '.db3':
            storages[file.name] = Db3Storage(plain, scratch)
        else:
            hint = '; rosbags-convert makes one of a bag of ROS 1' if _starts_with(file, b'#ROSBAG') else ''
            raise BagError(f'bag {file}: expected a rosbag2 folder or a .mcap or .db3 file, got {file.name!r}{hint}')
    return storages


def _names_in_metadata(folder: Path) -> list[str]:
    """Return the names of files that metadata.yaml lists, without a suffix of compression; none if it is of no use."""
    try:
        metadata = yaml.safe_load((folder / 'metadata.yaml').read_text(encoding='utf-8'))
        paths = metadata['rosbag2_bagfile_information']['relative_file_paths']
        paths = [paths] if isinstance(paths, str) else paths
        return list(dict.fromkeys(_plain_name(PurePath(path)) for path in paths))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        _logger.warning('bag %s: read without metadata.yaml, which cannot be used (%s)', folder, type(error).__name__)
        return []


def _decompress(file: Path, plain: Path) -> None:
    """Decompress a storage file as far as it goes; what is missing is seen when it is read. Raises BagError."""
    try:
        with file.open('rb') as source, plain.open('wb') as target:
            shutil.copyfileobj(zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True), target)
    except zstandard.ZstdError:
        pass
    except OSError as error:
        raise BagError(f'bag {file}: no decompressing to {plain.parent} (TMPDIR): {error.strerror}') from error


def _starts_with(file: Path, magic: bytes) -> bool:
    with file.open('rb') as content:
        return content.read(len(magic)) == magic


def _plain_name(file: PurePath) -> str:
    return file.stem if file.suffix in _COMPRESSED_SUFFIXES else file.name


def _suffix(file: Path) -> str:
    return PurePath(_plain_name(file)).suffix.lower()
