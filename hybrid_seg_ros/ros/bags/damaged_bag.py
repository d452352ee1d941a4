"""The messages of a bag whose files are damaged, cut off or missing, as far as they can be read."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Optional, Union

import yaml
import zstandard

from hybrid_seg_ros.ros.bags.bag_path import STORAGE_SUFFIXES
from hybrid_seg_ros.ros.bags.damaged_db3 import DamagedDb3
from hybrid_seg_ros.ros.bags.damaged_mcap import DamagedMcap
from hybrid_seg_ros.ros.bags.recorded_message import RecordedMessage
from hybrid_seg_ros.ros.bags.write_ahead_log import set_aside
from hybrid_seg_ros.ros.cdr_header import NANOSECONDS

_COMPRESSED_SUFFIX = '.zstd'
"""rosbag2 adds it to a storage file that it compressed as a whole."""


def storage_files(folder: Path) -> list[Path]:
    """Return the storage files of a bag's folder in the order they were recorded: bag_2 before bag_10."""
    files = [file for file in folder.iterdir() if PurePath(_plain_name(file)).suffix in STORAGE_SUFFIXES]
    names = {file.name for file in files}
    files = [file for file in files if file.name == _plain_name(file) or _plain_name(file) not in names]
    return sorted(files, key=lambda file: [int(part) if part.isdigit() else part
                                           for part in re.split(r'(\d+)', _plain_name(file))])  # fmt: skip


@dataclass(frozen=True)
class Stock:
    """How many messages of each topic can be used, and the seconds from the first to the last."""

    counts: Counter[str]
    seconds: float


class DamagedBag:
    """A bag's folder, or one storage file. `topics` (name: type) and `problems` are complete after `messages`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = storage_files(path) if path.is_dir() else [path]
        self._scratch: Optional[TemporaryDirectory] = None
        self.topics: dict[str, str] = {}
        self.problems: tuple[str, ...] = ()

    def close(self) -> None:
        """Remove what was decompressed or set aside."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def messages(self, topics: Optional[Collection[str]] = None) -> Iterator[RecordedMessage]:
        """Yield the messages of these topics, or of all, in the order they were recorded."""
        problems = _metadata_problems(self._path, self._files) if self._path.is_dir() else []
        for file in self._files:
            reader = self._reader(file)
            for message in reader.messages():
                if topics is None or message.topic in topics:
                    yield message._replace(cdr=_decompressed(message.cdr))
            self.topics = {**reader.topics, **self.topics}
            if reader.problem is not None:
                problems.append(f'{file.name} {reader.problem}')
        self.problems = tuple(problems)

    def take_stock(self, is_usable: Callable[[RecordedMessage], bool]) -> Stock:
        """Read the bag to its end and count."""
        counts: Counter[str] = Counter()
        first_ns, last_ns = 0, 0
        for message in filter(is_usable, self.messages()):
            first_ns = min(first_ns, message.log_ns) if counts else message.log_ns
            last_ns = max(last_ns, message.log_ns)
            counts[message.topic] += 1
        return Stock(counts, (last_ns - first_ns) / NANOSECONDS)

    def _reader(self, file: Path) -> Union[DamagedMcap, DamagedDb3]:
        if file.suffix == _COMPRESSED_SUFFIX:
            file = self._decompress(file)
        if file.suffix == '.mcap':
            return DamagedMcap(file)
        return DamagedDb3(file, set_aside(file, self._scratch_folder()))

    def _decompress(self, file: Path) -> Path:
        """Decompress a storage file as far as it goes."""
        plain = self._scratch_folder() / file.stem
        if not plain.exists():
            with file.open('rb') as source, plain.open('wb') as target:
                try:
                    shutil.copyfileobj(zstandard.ZstdDecompressor().stream_reader(source), target)
                except zstandard.ZstdError:
                    pass  # what is missing is seen when the file is read
        return plain

    def _scratch_folder(self) -> Path:
        if self._scratch is None:
            self._scratch = TemporaryDirectory(prefix='hybrid_seg_bag_')
        return Path(self._scratch.name)


def _metadata_problems(folder: Path, files: list[Path]) -> list[str]:
    try:
        metadata = yaml.safe_load((folder / 'metadata.yaml').read_text(encoding='utf-8'))
        names = [PurePath(name).name for name in metadata['rosbag2_bagfile_information']['relative_file_paths']]
    except FileNotFoundError:
        return ['metadata.yaml is missing (was the recorder killed?)']
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ['metadata.yaml is damaged']
    there = {file.name for file in files}
    return [f'{name} is missing' for name in names if name not in there]


def _plain_name(file: Path) -> str:
    return file.name.removesuffix(_COMPRESSED_SUFFIX)


def _decompressed(cdr: bytes) -> bytes:
    """Undo rosbag2's compression of single messages; CDR itself starts with a zero."""
    if not cdr.startswith(zstandard.FRAME_HEADER):
        return cdr
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(cdr)
    except zstandard.ZstdError:
        return b''  # no message, and taken for none
