"""Finds image files that end early or are damaged; decoders fill what is missing with grey, and say nothing."""

from __future__ import annotations

import re
from typing import Optional

from hybrid_seg_ros.data.png_file import PNG_SIGNATURE, png_chunks

_END_OF_IMAGE = 0xD9
_JPEG_MARKER = re.compile(rb'\xff+([^\x00\xff\xd0-\xd7])')
"""A segment's marker; in coded data, 0xFF00 is a byte of data and D0 to D7 are restart marks."""


def find_damage(data: bytes) -> Optional[str]:
    """Say what is wrong with the bytes of a JPEG, PNG, WebP or BMP file; None if nothing is to be seen."""
    if not data:
        return 'the file is empty'
    if data.startswith(b'\xff\xd8'):
        complete = _jpeg_has_its_end(data)
    elif data.startswith(PNG_SIGNATURE):
        chunks = list(png_chunks(data))
        broken = next((chunk for chunk in chunks if not chunk.intact), None)
        if broken is not None:
            return f'the file is damaged (PNG chunk {broken.kind.decode("latin-1")} fails its checksum)'
        complete = bool(chunks) and chunks[-1].kind == b'IEND'
    elif data.startswith(b'RIFF') and data[8:12] == b'WEBP':
        complete = len(data) >= 8 + int.from_bytes(data[4:8], 'little')
    elif data.startswith(b'BM'):
        complete = len(data) >= int.from_bytes(data[2:6], 'little')
    else:
        complete = True
    return None if complete else 'the file is cut off before the end of the image'


def _jpeg_has_its_end(data: bytes) -> bool:
    """Walk a JPEG from segment to segment, so that the end of a thumbnail inside is not taken for its own."""
    found = _JPEG_MARKER.search(data, 2)
    while found is not None and found[1][0] != _END_OF_IMAGE:
        length = int.from_bytes(data[found.end() : found.end() + 2], 'big')
        found = _JPEG_MARKER.search(data, found.end() + length)  # coded data may lie between
    return found is not None
