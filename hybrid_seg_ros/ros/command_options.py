"""What commands that start a node have in common on the command line."""

from __future__ import annotations

import sys
from typing import Any


def exit_in_order(number: int, _frame: Any) -> None:
    """Leave by an exception, so that the children are ended on the way: a signal handler."""
    sys.exit(128 + number)


def parse_parameter(text: str) -> tuple[str, str]:
    """Read NAME:=VALUE, a parameter of the node. Raises ValueError for anything else."""
    name, separator, value = text.partition(':=')
    if not (name and separator and value):
        raise ValueError(f'param: expected NAME:=VALUE, got {text!r}')
    return name, value
