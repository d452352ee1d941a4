"""What the pages say of commands, options, parameters and files is what there is."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

import yaml
from pages import COMMANDS, PAGES, ROOT, Command, blocks

from hybrid_seg_ros import cli
from hybrid_seg_ros.ros.parameters import DECLARATIONS

PARAMETERS = {declaration.name for declaration in DECLARATIONS}


def complaint(command: Command) -> str:
    """Return what is wrong with a `hybrid_seg` command; one in a sentence may lack what is required."""
    argv = command.words[1:]
    name = cli.chosen_command(argv)
    if name is None:
        return '' if {'--help', 'COMMAND'} & set(argv) else f'{command}: no such command'
    parser = cli.build_parser(name, cli.COMMANDS[name].load())
    (choices,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    actions = choices[name]._actions
    for action in actions if not command.is_whole else ():
        action.required = False
        if not action.option_strings:
            action.nargs = {None: '?', '+': '*'}.get(action.nargs, action.nargs)
    options = {option for action in actions for option in action.option_strings}
    unknown = [word for word in argv if word.startswith('--') and word.partition('=')[0] not in options]
    if unknown:
        return f'{command}: there is no {", ".join(unknown)}'  # argparse takes abbreviations, too
    try:
        parser.parse_args(argv)
    except SystemExit as end:
        return f'{command}: not what the command takes' if end.code else ''
    return ''


def test_arguments_are_those_of_the_commands(capsys):
    commands = [command for command in COMMANDS if command.words[0] == 'hybrid_seg']
    assert len(commands) > 50
    wrong = [text for text in map(complaint, commands) if text]
    assert not wrong, '\n'.join([*wrong, capsys.readouterr().err])


def test_every_command_is_on_a_page():
    texts = ' '.join(page.read_text(encoding='utf-8') for page in PAGES)
    assert not [name for name in cli.COMMANDS if not re.search(rf'\bhybrid_seg {name}\b(?!-)', texts)]


def test_parameters_are_those_of_the_node():
    for command in COMMANDS:
        named = re.findall(r'(?:-p|--param) (\w+):=|ros2 param set \S+ (\w+)', command.text)
        assert {name for names in named for name in names if name} <= PARAMETERS, command
    for text in (text for page in PAGES for _, text in blocks(page) if text.startswith('/**:')):
        (content,) = yaml.safe_load(text).values()
        assert set(content['ros__parameters']) <= {*PARAMETERS, 'qos_overrides'}, text


def make(*arguments: str) -> str:
    """Return the last command that make would run; the tests may themselves run under make."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(('MAKE', 'MFLAGS'))}
    done = subprocess.run(['make', '-n', *arguments], cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_make_does_what_the_pages_say():
    """test/ros has a test that runs the demo."""
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for command in (command for command in COMMANDS if command.words[0] == 'make'):
        assert re.search(rf'^{command.words[1]}:', makefile, re.MULTILINE), command
    assert make('demo', 'DEMO_ARGS=--param variant:=dense') == '.venv/bin/hybrid_seg demo --param variant:=dense'
    assert make('test', 'PYTEST_ARGS=').startswith('.venv/bin/python -m pytest')
    assert re.search(r'\bmake .*\btest\b', (ROOT / '.ci' / 'run').read_text(encoding='utf-8'))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'```.*?```', '', text, flags=re.DOTALL)):
            path, _, anchor = target.partition('#')
            file = page.parent / path if path else page
            assert re.match(r'\w+:', target) or file.exists(), f'{page.name}: {target}'
            assert not anchor or re.match(r'\w+:', target) or anchor in anchors(file), f'{page.name}: {target}'
        assert not re.search(r'^[A-Z_]+$|@@|TODO|FIXME', text, re.MULTILINE), f'{page.name} has a gap to be filled'
