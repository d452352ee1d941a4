"""The chunks of a PNG file, and the indices of one with a palette, which OpenCV only gives as colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GREY, _INDEXED = 0, 3
_DEPTH_AT, _COLOR_TYPE_AT, _HEADER_BYTES = 8, 9, 13
"""Places of bit depth and colour type within the IHDR chunk, and its length (PNG specification, 11.2.1)."""


class PngChunk(NamedTuple):
    """A chunk with its checksum."""

    kind: bytes
    content: Union[bytes, memoryview]
    checksum: int

    @property
    def intact(self) -> bool:
        """Whether the checksum is right."""
        return zlib.crc32(self.content, zlib.crc32(self.kind)) == self.checksum


def png_chunks(data: Union[bytes, memoryview]) -> Iterator[PngChunk]:
    """List the chunks that are there in full, up to IEND."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from('>I', data, position)
        end = position + 12 + length
        if end > len(data):
            return
        kind, content = bytes(data[position + 4 : position + 8]), data[position + 8 : end - 4]
        (checksum,) = struct.unpack_from('>I', data, end - 4)
        yield PngChunk(kind, content, checksum)
        if kind == b'IEND':
            return
        position = end


def palette_indices(data: bytes) -> Optional[np.ndarray]:
    """Return the indices (H, W) uint8 of a PNG with a palette; None if the file is something else.

    The file is decoded as if it were grey: the coded data are the same, only the header says what they mean.
    """
    if not data.startswith(PNG_SIGNATURE):
        return None
    chunks = list(png_chunks(data))
    if not chunks or chunks[0].kind != b'IHDR' or len(chunks[0].content) != _HEADER_BYTES:
        return None
    header = bytearray(chunks[0].content)
    if header[_COLOR_TYPE_AT] != _INDEXED:
        return None
    header[_COLOR_TYPE_AT] = _GREY
    kept = [(b'IHDR', bytes(header)), *((c.kind, c.content) for c in chunks if c.kind in (b'IDAT', b'IEND'))]
    grey = PNG_SIGNATURE + b''.join(
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(content, zlib.crc32(kind)))
        for kind, content in kept
    )
    values = cv2.imdecode(np.frombuffer(grey, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        return None
    return values // (255 // (2 ** header[_DEPTH_AT] - 1))  # 1, 2 and 4 bits are stretched to 0..255
