"""Imports point one way: reads the import statements of every file and holds them against the rooms' rules."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = 'hybrid_seg_ros'
PACKAGE_DIR = Path(__file__).parents[1] / PACKAGE

COMMON = {'files', 'label_space', 'model_path', 'model_spec', 'process_memory', 'segmentation'}
ROOMS = {
    'network': COMMON,
    'data': COMMON,
    'inference': COMMON | {'network', 'data', 'visualization'},
    'evaluation': COMMON | {'network', 'inference', 'data', 'visualization'},
    'training': COMMON | {'network', 'data', 'evaluation'},
    'export': COMMON | {'network', 'inference', 'data'},
    'ros': COMMON | {'inference', 'evaluation', 'data', 'visualization'},
    'visualization': COMMON,
    'files': set(),
    'label_space': set(),
    'model_path': set(),
    'process_memory': set(),
    'segmentation': set(),
    'model_spec': COMMON,
    'cli': {'process_memory'},  # names its commands as strings, and imports the chosen one
    '__init__': {'inference'},  # load_pipeline, when asked for
}
"""What each room, or file at the top, may import of the package besides itself."""

ROS_ONLY = {'rclpy', 'cv_bridge', 'launch', 'launch_ros', 'ament_index_python'}
ROS_ONLY_ENDINGS = ('_msgs', '_srvs', '_interfaces')
ROS_ONLY_STARTS = ('rosidl',)

BACKEND_LIBRARIES = {'onnx', 'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings', 'cuda'}
BACKEND_ROOMS = ('inference/backends/', 'export/')
WITHOUT_TORCH = {'__init__', 'cli', *COMMON, 'visualization', 'ros'}
"""Rooms that do not import PyTorch at the top of a file: starting them must stay quick and possible without it."""


class Import(NamedTuple):
    """One imported module, by its full name, and whether it is imported as soon as the file is."""

    module: str
    line: int
    at_import: bool


@functools.cache
def imports_of(path: Path, module: str) -> list[Import]:
    """List what the file imports; `from package import x` counts as package.x."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    late = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_type_checking(node):
            late.update(id(child) for child in ast.walk(node))
    package = module if path.name == '__init__.py' else module.rpartition('.')[0]
    return [
        Import(name, node.lineno, id(node) not in late)
        for node in ast.walk(tree) for name in imported_names(node, package)
    ]  # fmt: skip


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ('TYPE_CHECKING', 'typing.TYPE_CHECKING')


def imported_names(node: ast.AST, package: str) -> list[str]:
    """Return the full names that a statement imports, or that a call of import_module names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
        base = '.'.join([*parents, *([node.module] if node.module else [])])
        return [f'{base}.{alias.name}' for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(('import_module', '__import__')) and node.args:
        name = node.args[0]
        return [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
    return []


def violations(path: Path, package_dir: Path = PACKAGE_DIR) -> list[str]:
    """Say which rules a file breaks."""
    relative = path.relative_to(package_dir)
    room = relative.parts[0].removesuffix('.py')
    module = '.'.join([PACKAGE, *relative.with_suffix('').parts]).removesuffix('.__init__')
    if room not in ROOMS:
        return [f'{relative}: {room!r} is no room; expected one of {", ".join(ROOMS)}']
    found = []
    for imported in imports_of(path, module):
        top, _, rest = imported.module.partition('.')
        target = rest.partition('.')[0]
        lazily = '' if imported.at_import else ' (even inside a function)'
        if top == PACKAGE and target in ROOMS and target != room and target not in ROOMS[room]:
            problem = f'{room} may not import {target}'
        elif is_ros(top) and room != 'ros' and (room, top) != ('model_path', 'ament_index_python'):
            problem = f'only ros may import {top}{lazily}'
        elif top in BACKEND_LIBRARIES and not relative.as_posix().startswith(BACKEND_ROOMS):
            problem = f'only {" and ".join(BACKEND_ROOMS)} may import {top}{lazily}'
        elif top == 'torch' and room in WITHOUT_TORCH and imported.at_import:
            problem = f'{room} may not import torch at the top of a file'
        else:
            continue
        found.append(f'{relative}:{imported.line}: {problem}')
    return found


def is_ros(top: str) -> bool:
    return top in ROS_ONLY or top.endswith(ROS_ONLY_ENDINGS) or top.startswith(ROS_ONLY_STARTS)


def test_imports_follow_the_rules():
    files = sorted(PACKAGE_DIR.rglob('*.py'))
    assert len(files) > 10, f'expected the files of the package in {PACKAGE_DIR}, got {len(files)}'
    found = [line for path in files for line in violations(path)]
    assert not found, '\n' + '\n'.join(found)


@pytest.mark.parametrize(
    'file, source, complaint',
    [
        ('network/vit.py', 'import numpy\nfrom hybrid_seg_ros.model_spec import ModelSpec', None),
        ('network/vit.py', 'from hybrid_seg_ros.inference.pipeline import x', 'network may not import inference'),
        ('network/vit.py', 'from ..inference import pipeline', 'network may not import inference'),
        ('network/vit.py', 'from .. import inference', 'network may not import inference'),
        ('network/vit.py', 'from . import token_layout', None),
        ('inference/pipeline.py', 'def f():\n    import rclpy', 'only ros may import rclpy'),
        ('inference/pipeline.py', 'from sensor_msgs.msg import Image', 'only ros may import sensor_msgs'),
        ('inference/pipeline.py', 'import onnxruntime', 'may import onnxruntime'),
        ('inference/backends/onnx_backend.py', 'import onnxruntime', None),
        ('inference/__init__.py', 'from .backends import base', None),
        ('evaluation/x.py', 'def f():\n    from hybrid_seg_ros.ros import replay', 'evaluation may not import ros'),
        ('evaluation/x.py', 'import_module("hybrid_seg_ros.ros.replay")', 'evaluation may not import ros'),
        ('ros/node.py', 'import rclpy\nfrom std_srvs.srv import Trigger', None),
        ('ros/node.py', 'import torch', 'ros may not import torch at the top'),
        ('ros/node.py', 'def f():\n    import torch', None),
        ('ros/node.py', 'from hybrid_seg_ros.network.vit import x', 'ros may not import network'),
        ('cli.py', 'import torch', 'cli may not import torch at the top'),
        ('__init__.py', 'if TYPE_CHECKING:\n    from hybrid_seg_ros.inference import load_pipeline', None),
        ('network/x.py', 'from hybrid_seg_ros import cli', 'network may not import cli'),
        ('helpers.py', '', "'helpers' is no room"),
    ],
)
def test_a_rule_that_is_broken_is_noticed(tmp_path, file, source, complaint):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding='utf-8')
    found = violations(path, tmp_path)
    assert len(found) == (complaint is not None), found
    assert complaint is None or complaint in found[0]


def circles(package_dir: Path) -> list[set[str]]:
    """Return the sets of modules that import one another around a circle, whenever and for whatever they do."""
    paths = {}
    for path in package_dir.rglob('*.py'):
        module = '.'.join([PACKAGE, *path.relative_to(package_dir).with_suffix('').parts])
        paths[module.removesuffix('.__init__')] = path
    imported = {}
    for module, path in paths.items():
        names = {each.module for each in imports_of(path, module)}
        imported[module] = {name if name in paths else name.rpartition('.')[0] for name in names} - {module}
    reached = {module: reachable(module, imported) for module in paths}
    found = [{other for other in each if module in reached.get(other, ())} for module, each in reached.items()]
    return sorted((circle for circle in found if circle), key=sorted)


def reachable(module: str, imported: dict[str, set[str]]) -> set[str]:
    """Return the modules that a module imports, and those that they import, and so on."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = imported.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def test_no_modules_import_one_another():
    """Imports inside of functions and for types only count, too; commands are named as strings."""
    found = {', '.join(sorted(circle)) for circle in circles(PACKAGE_DIR)}
    assert not found, '\n' + '\n'.join(found)


def test_a_circle_is_noticed(tmp_path):
    sources = {
        '__init__.py': '', 'a.py': f'from {PACKAGE}.b import x', 'b.py': f'def f():\n    from {PACKAGE} import c',
        'c.py': f'if TYPE_CHECKING:\n    from {PACKAGE}.a import y', 'd.py': f'import {PACKAGE}.a\nimport numpy',
    }  # fmt: skip
    for name, source in sources.items():
        (tmp_path / name).write_text(source, encoding='utf-8')
    assert circles(tmp_path) == [{f'{PACKAGE}.{name}' for name in 'abc'}] * 3


def test_the_page_says_the_same():
    """docs/architecture.md lists each room with what it may import, besides the four files and visualization.py."""
    page = (PACKAGE_DIR.parent / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| `(\w+)/` \|.*\| ?(.*?) ?\|$', page, re.MULTILINE)
    told = {room: set(re.findall(r'`(\w+)`', imports)) for room, imports in rows}
    assert told == {room: ROOMS[room] - COMMON - {'visualization'} for room in told}
    assert set(told) == {room for room in ROOMS if (PACKAGE_DIR / room).is_dir()}
