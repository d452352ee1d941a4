"""The commands that README.md and the other pages show, with where they stand."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybrid_seg_ros import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / 'README.md',
    *(page for folder in ('docs', 'models', 'bags') for page in sorted((ROOT / folder).glob('*.md'))),
]

SHELL = ('', 'bash', 'sh', 'shell', 'console')
"""Languages of a code block that holds commands; what is none says so (```text)."""

SEPARATORS = ('&&', '||', ';', '|', '&', '>')


@dataclass(frozen=True)
class Command:
    """A command of a page; `text` is one line, without comment, prompt and line breaks."""

    page: str
    line: int
    text: str

    @property
    def where(self) -> str:
        """File and line, as an editor takes them."""
        return f'{self.page}:{self.line}'

    @property
    def words(self) -> list[str]:
        """The words that the shell makes of it; a program of ours without the folder that it is in."""
        words = shlex.split(self.text)
        while words and re.match(r'\w+=', words[0]):
            words = words[1:]
        if words[:4] == ['ros2', 'run', 'hybrid_seg_ros', 'hybrid_seg']:
            return words[3:]
        return [words[0].replace('.venv/bin/', ''), *words[1:]] if words else []

    @property
    def subcommand(self) -> str:
        """The word after `hybrid_seg`; empty for other programs."""
        return self.words[1] if self.words[0] == 'hybrid_seg' and len(self.words) > 1 else ''


def blocks(path: Path) -> Iterator[tuple[str, int, str]]:
    """List (language, first line, text) of a page's code blocks."""
    text = path.read_text(encoding='utf-8')
    for match in re.finditer(r'^```(\w*)\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
        yield match[1], text.count('\n', 0, match.start(2)) + 1, match[2]


def block_commands(path: Path) -> Iterator[Command]:
    """List the commands in a page's code blocks; `a && b` is two."""
    for language, first, text in blocks(path):
        if language not in SHELL:
            continue
        for number, line in whole_lines(text):
            words: list[str] = []
            for word in [*shlex.split(line, comments=True, posix=False), '&&']:
                if word not in SEPARATORS:
                    words.append(word)
                    continue
                if words:
                    yield Command(name_of(path), first + number, ' '.join(words).removeprefix('$ '))
                words = []


def whole_lines(text: str) -> Iterator[tuple[int, str]]:
    """List (number, line) with the lines put together that end in a backslash."""
    begun, start = '', 0
    for number, line in enumerate(text.splitlines()):
        start = start if begun else number
        begun += line
        if begun.endswith('\\'):
            begun = begun[:-1]
            continue
        yield start, begun
        begun = ''


def inline_commands(path: Path) -> Iterator[Command]:
    """List what stands between backticks in a page's text and begins with `hybrid_seg` or `make`, and has arguments."""
    text = path.read_text(encoding='utf-8')
    text = re.sub(r'^```.*?^```', lambda block: '\n' * block[0].count('\n'), text, flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r'`((?:\w+=\S+ )?(?:\.venv/bin/)?(?:hybrid_seg|make)\s[^`]+)`', text):
        yield Command(name_of(path), text.count('\n', 0, match.start()) + 1, ' '.join(match[1].split()))


def name_of(path: Path) -> str:
    """Return the page's name, from the top of the repository."""
    return path.relative_to(ROOT).as_posix()


def parse(command: Command, is_complete: bool = True) -> argparse.Namespace:
    """Parse a `hybrid_seg` command; one that is not complete may lack what is required. Raises ValueError."""
    argv = command.words[1:]
    name = cli.chosen_command(argv)
    if name is None:
        raise ValueError(f'{command.where}: {command.text}: no such command; there are {", ".join(cli.COMMANDS)}')
    parser = cli.build_parser(name, cli.COMMANDS[name].load())
    choices = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if not is_complete:
        for action in choices[name]._actions:
            action.required = False
            if not action.option_strings and action.nargs is None:
                action.nargs = '?'
            elif not action.option_strings and action.nargs == '+':
                action.nargs = '*'
    options = {option for action in choices[name]._actions for option in action.option_strings}
    unknown = [word for word in argv if word.startswith('--') and word.partition('=')[0] not in options]
    if unknown:
        raise ValueError(f'{command.where}: {command.text}: {name} has no {", ".join(unknown)}')
    try:
        return parser.parse_args(argv)
    except SystemExit as end:
        raise ValueError(f'{command.where}: {command.text}: not what the command takes') from end


def begins(text: str, beginning: str) -> bool:
    """Tell whether a command begins with these words."""
    return f'{text} '.startswith(f'{beginning} ')


BLOCK_COMMANDS = [command for page in PAGES for command in block_commands(page)]
INLINE_COMMANDS = [command for page in PAGES for command in inline_commands(page)]
