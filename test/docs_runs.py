"""Which commands of the pages run in which test, by docs_table.py."""

from __future__ import annotations

import re
from collections.abc import Sequence

from docs_commands import BLOCK_COMMANDS, INLINE_COMMANDS, Command, begins
from docs_table import ELSEWHERE, NOT_HERE, PAGES_ELSEWHERE, SHORTHAND, SMALLER

RUN = 'run'


def how(command: Command) -> str:
    """Return 'run', the test that runs it, or why it cannot run; empty if nothing says so."""
    if command.page in PAGES_ELSEWHERE:
        return PAGES_ELSEWHERE[command.page]
    said = {**dict.fromkeys(SMALLER, RUN), **ELSEWHERE, **NOT_HERE}
    text = ' '.join(command.words)
    longest = max((beginning for beginning in said if begins(text, beginning)), key=len, default=None)
    if longest is not None:
        return said[longest]
    return RUN if command.words[0] in ('cp', 'hybrid_seg', 'python', 'torchrun') else ''


def runs(of: Sequence[str] = (), without: Sequence[str] = ()) -> list[Command]:
    """Return the commands to be run, in the order of the pages: of these subcommands, or of all others.

    Of those that differ in the values of their options alone, the first; the others are parsed.
    """
    commands = [*BLOCK_COMMANDS, *filter(is_whole, INLINE_COMMANDS)]
    chosen = [c for c in commands if how(c) == RUN and (kind(c) in of if of else kind(c) not in without)]
    return list({shape(command): command for command in reversed(chosen)}.values())[::-1]


def shape(command: Command) -> tuple[str, ...]:
    """Return the subcommand, with the kind of checkpoint, and its options; all of another program's command."""
    words = command.words
    if not command.subcommand:
        return (command.text,)
    options = sorted(word for word in words if word.startswith('--'))
    return (*words[1 : 3 if command.subcommand == 'convert' else 2], *options)


def kind(command: Command) -> str:
    """Return the subcommand; that of torchrun's commands as well."""
    if command.words[0] == 'torchrun':
        return command.words[command.words.index('hybrid_seg_ros.cli') + 1]
    return command.subcommand


def is_whole(command: Command) -> bool:
    """Tell whether text in backticks is a command to be run: `hybrid_seg` with arguments, and no shorthand."""
    if command.words[0] != 'hybrid_seg' or len(command.words) < 3 or '--help' in command.words:
        return False
    return command.text not in SHORTHAND


def identify(command: Command) -> str:
    """Return the name of the command's test."""
    return command.where + '-' + re.sub(r'\W+', '-', command.text.replace('hybrid_seg', ''))[:50].strip('-')
