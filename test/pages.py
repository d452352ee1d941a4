"""README.md and the other pages, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / 'README.md',
    *(page for folder in ('docs', 'models', 'bags') for page in sorted((ROOT / folder).glob('*.md'))),
]
SHELL = ('', 'bash', 'sh', 'shell', 'console')
"""Languages of a code block that holds commands; what is none says so (```text)."""


@dataclass(frozen=True)
class Command:
    """A command of a page, in one line without comment and prompt; in a block it is whole, in a sentence maybe not."""

    page: str
    text: str
    is_whole: bool

    def __str__(self) -> str:
        """Say where it stands."""
        return f'{self.page}: {self.text}'

    @property
    def words(self) -> list[str]:
        """The words that the shell makes of it; a program of ours without the folder that it is in."""
        words = shlex.split(self.text)
        if words[:4] == ['ros2', 'run', 'hybrid_seg_ros', 'hybrid_seg']:
            return words[3:]
        return [words[0].replace('.venv/bin/', ''), *words[1:]]


def blocks(page: Path) -> list[tuple[str, str]]:
    """List (language, text) of a page's code blocks."""
    return re.findall(r'^```(\w*)\n(.*?)^```', page.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[Command]:
    """List the commands in code blocks, where `a && b` is two, and what begins as one of ours between backticks."""
    name = page.relative_to(ROOT).as_posix()
    for language, text in blocks(page):
        for line in text.replace('\\\n', ' ').splitlines() if language in SHELL else ():
            words = shlex.join(shlex.split(line, comments=True))
            yield from (Command(name, part, True) for part in re.split(r" '?(?:&&|;|\|)'? ", words) if part)
    prose = re.sub(r'^```.*?^```', '', page.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    for text in re.findall(r'`((?:\.venv/bin/)?(?:hybrid_seg|make)\s[^`]+)`', prose):
        yield Command(name, ' '.join(text.split()), False)


COMMANDS = [command for page in PAGES for command in commands(page)]
