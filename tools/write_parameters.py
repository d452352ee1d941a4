"""Write what derives from the node's parameters: config/segmentation.yaml and the table in docs/node.md.

For maintainers, after a change of hybrid_seg_ros/ros/parameters.py: `python tools/write_parameters.py`.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml

from hybrid_seg_ros.ros.parameters import CONFIGURE, DECLARATIONS, LIVE, START, Declaration

ROOT = Path(__file__).resolve().parents[1]
PARAMETER_FILE = ROOT / 'config' / 'segmentation.yaml'
PAGE = ROOT / 'docs' / 'node.md'

HEADER = """\
# Parameters of segmentation_node; the values here are its defaults. `ros2 param describe` says the same of each.
# Copy it and give yours:  ros2 launch hybrid_seg_ros segmentation.launch.py params_file:=my.yaml
/**:
  ros__parameters:
"""
TABLE_HEADER = '| name | default | legal | when | |\n|---|---|---|---|---|\n'
WHEN = {CONFIGURE: 'configure', START: 'start', LIVE: 'live'}


def parameter_file() -> str:
    """Return config/segmentation.yaml: every parameter with its default, its description above it."""
    lines, when = [], ''
    for declaration in DECLARATIONS:
        if declaration.when != when:
            when = declaration.when
            lines += ['', f'# ---- {when}'] if lines else [f'# ---- {when}']
        said = ' '.join(filter(None, [declaration.description, legal(declaration, 'One of: {}.', 'From {} to {}.')]))
        lines += ['', *textwrap.wrap(said, 112, initial_indent='# ', subsequent_indent='# ')]
        lines.append(f'{declaration.name}: {in_yaml(declaration.default)}')
    return HEADER + ''.join(f'    {line}\n' if line else '\n' for line in lines)


def parameter_table() -> str:
    """Return the table of docs/node.md."""
    rows = [
        [f'`{d.name}`', f'`{in_yaml(d.default)}`', legal(d, '{}', '{} to {}', '`'), WHEN[d.when], d.description]
        for d in DECLARATIONS
    ]
    return TABLE_HEADER + ''.join(f'| {" | ".join(cells)} |\n' for cells in rows)


def page(old: str) -> str:
    """Return docs/node.md with the present table."""
    before, _, rest = old.partition(TABLE_HEADER)
    after = rest[rest.index('\n\n') + 1 :]
    return before + parameter_table() + after


def legal(declaration: Declaration, choice: str, span: str, quote: str = '') -> str:
    """Say which values a parameter may have: `choice` of a list, `span` of two ends; '' where anything may stand."""
    if declaration.legal:
        return choice.format(', '.join(f'{quote}{value}{quote}' for value in declaration.legal))
    return span.format(*map(in_yaml, declaration.low_high)) if declaration.low_high else ''


def in_yaml(value: Any) -> str:
    """Return a value as it is written in a parameter file."""
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]


if __name__ == '__main__':
    PARAMETER_FILE.write_text(parameter_file(), encoding='utf-8')
    PAGE.write_text(page(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
