"""The header stamp of a serialised message, read and replaced without deserialising the image behind it.

A CDR message is 4 bytes of encapsulation, then the fields. `sensor_msgs/Image` and `CompressedImage` (any message
whose first field is `std_msgs/Header`) start with the stamp: int32 seconds, uint32 nanoseconds.
"""

from __future__ import annotations

import struct

_ENCAPSULATION_BYTES = 4
_STAMP_END = _ENCAPSULATION_BYTES + 8
NANOSECONDS = 1_000_000_000


def read_stamp_ns(cdr: bytes) -> int:
    """Return the header stamp in nanoseconds. Raises ValueError if the message is too short to hold one."""
    seconds, nanoseconds = struct.unpack_from(_layout(cdr), cdr, _ENCAPSULATION_BYTES)
    return seconds * NANOSECONDS + nanoseconds


def replace_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """Return a copy of the message whose header stamp is `stamp_ns`."""
    stamp = struct.pack(_layout(cdr), *divmod(stamp_ns, NANOSECONDS))
    return b''.join((bytes(cdr[:_ENCAPSULATION_BYTES]), stamp, bytes(cdr[_STAMP_END:])))


def _layout(cdr: bytes) -> str:
    if len(cdr) < _STAMP_END:
        raise ValueError(f'expected a serialised message of at least {_STAMP_END} bytes, got {len(cdr)}')
    return '<iI' if cdr[1] & 1 else '>iI'  # the low bit of the second byte says little endian
