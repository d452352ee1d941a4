"""The folder of results: all files whole, or none of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Optional


def check_folder(folder: Path) -> None:
    """Raise NotADirectoryError if `folder`, or one above it, is a file: now rather than after all is measured."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise NotADirectoryError(f'--output {folder}: expected a folder, {path} is a file')
            return


def check_file(path: Optional[Path], option: str) -> None:
    """Raise IsADirectoryError or NotADirectoryError if no file can be at `path`, given by `option`; None is no file."""
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(f'{option} {path}: expected a file, that is a folder')
    above = next((parent for parent in path.parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise NotADirectoryError(f'{option} {path}: expected a file in a folder, {above} is a file')


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` by name, all of them or none; others in the folder stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    partials = {name: folder / f'{name}.partial' for name in files}
    try:
        for name, data in files.items():
            partials[name].write_bytes(data)
        for name, partial in partials.items():
            partial.replace(folder / name)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
