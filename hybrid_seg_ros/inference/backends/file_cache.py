"""Files that take long to make, kept in the user's cache folder: whole, and made again if they are damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.model_spec import sha256_of

MANIFEST = 'manifest.json'
CACHE_DIR_VARIABLE = 'HYBRID_SEG_CACHE_DIR'


def default_cache_dir() -> Path:
    """Return $HYBRID_SEG_CACHE_DIR, or hybrid_seg_ros in the user's cache folder (XDG base directories)."""
    named = os.environ.get(CACHE_DIR_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'hybrid_seg_ros'


def cache_key(content: Any) -> str:
    """Return a short hash of JSON content, for the name of a folder."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def source_digest(*folders: Path) -> str:
    """Return a hash of the Python files of `folders`: what they made is made anew when they change."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob('*.py')):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def cached_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder` with the files that `make(path)` writes; made if missing, truncated or altered.

    It appears with all its files or not at all, also where several processes make it at once. Raises OSError that
    names the folder if it cannot be written.
    """
    if is_intact(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=folder.name + '.', suffix='.partial', dir=folder.parent))
    except OSError as error:
        hint = f'set {CACHE_DIR_VARIABLE} to a folder that can be written'
        raise OSError(f'cannot write the cache folder {folder.parent} ({error.strerror}); {hint}') from error
    try:
        make(work)
        manifest = {path.name: sha256_of(path) for path in sorted(work.iterdir())}
        (work / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding='utf-8')
        if folder.exists() and not is_intact(folder):
            shutil.rmtree(folder)
        try:
            work.rename(folder)
        except OSError:
            if not is_intact(folder):  # else another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def is_intact(folder: Path) -> bool:
    """Whether a folder has all the files that its manifest lists, unaltered."""
    manifest = _read_manifest(folder)
    return manifest is not None and all(
        (folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in manifest.items()
    )


def _read_manifest(folder: Path) -> Optional[dict[str, str]]:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
