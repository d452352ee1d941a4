"""Whether a PNG is there to its end: some OpenCV versions fill up what is missing with black and say nothing."""

from __future__ import annotations

from typing import Union

from hybrid_seg_ros.data.png_file import PNG_SIGNATURE, png_chunks

PNG_START = PNG_SIGNATURE


def has_png_end(data: Union[bytes, memoryview]) -> bool:
    """Walk from chunk to chunk; return whether that leads to the last one."""
    return any(chunk.kind == b'IEND' for chunk in png_chunks(data))
