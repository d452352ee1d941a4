"""Files that are written whole or not at all, and whether there is room for them before hours are spent."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional, Union


@contextlib.contextmanager
def whole_file(path: Union[str, Path]) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` at the end of the block; an error leaves what was there before.

    The folders that it is to lie in are made. A full disk, or a name that is too long, is an OSError that names `path`.
    """
    path = Path(path)
    partial = path.with_name(path.name + '.partial')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path, instead_of=partial):
            yield partial
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # of a name that is too long there is nothing
            partial.unlink()


@contextlib.contextmanager
def naming(path: Path, instead_of: Optional[Path] = None) -> Iterator[None]:
    """Let errors of writing that name no file, or `instead_of`, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(instead_of)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: Union[str, Path], data: bytes) -> None:
    """Write a file as `whole_file` does."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


def write_text(path: Union[str, Path], text: str) -> None:
    """Write a text file as `whole_file` does."""
    write_bytes(path, text.encode())


def write_json(path: Union[str, Path], content: Any) -> None:
    """Write JSON as `whole_file` does; numbers that are not finite, which JSON does not know, become null."""
    write_text(path, json.dumps(finite_or_null(content), indent=2, allow_nan=False) + '\n')


def finite_or_null(content: Any) -> Any:
    """Return plain content with None for each float that is not finite."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: finite_or_null(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite_or_null(value) for value in content]
    return content


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` by name, all of them or none; others in the folder stay as they are."""
    with contextlib.ExitStack() as stack:
        partials = {name: stack.enter_context(whole_file(folder / name)) for name in files}
        for name, data in files.items():
            partials[name].write_bytes(data)


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
