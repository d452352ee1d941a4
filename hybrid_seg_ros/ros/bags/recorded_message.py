"""A message as a bag's storage holds it, whatever the storage."""

from __future__ import annotations

from typing import NamedTuple


class RecordedMessage(NamedTuple):
    """A message of `topic`, recorded at `log_ns`; `cdr` is its serialised form."""

    topic: str
    msgtype: str
    log_ns: int
    cdr: bytes
