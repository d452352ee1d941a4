"""What a piece of code allocates at most, as Python's own allocators and NumPy tell it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace


@contextmanager
def traced_memory() -> Iterator[SimpleNamespace]:
    """Trace what the block allocates; behind it `peak` of what is yielded says how many bytes it held at most."""
    traced = SimpleNamespace(peak=None)
    tracemalloc.start()
    try:
        yield traced
        traced.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
