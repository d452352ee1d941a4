"""The package's manifest, its files and its versions fit together."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import hybrid_seg_ros

ROOT = Path(__file__).parents[1]
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()
SHARED_FOLDERS = ('launch', 'config', 'models', 'bags')


@pytest.fixture(scope='module')
def metadata():
    """Read what setup.py hands to setuptools."""
    code = ('import json, setuptools\n'
            'setuptools.setup = lambda **given: print(json.dumps(given))\n'
            'exec(compile(open("setup.py").read(), "setup.py", "exec"))')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_manifest_is_format_3():
    assert MANIFEST.tag == 'package' and MANIFEST.get('format') == '3'
    assert MANIFEST.findtext('name') == 'hybrid_seg_ros'
    assert re.fullmatch(r'\d+\.\d+\.\d+', MANIFEST.findtext('version'))
    assert MANIFEST.findtext('description').strip()
    assert re.fullmatch(r'[^@\s]+@[^@\s]+\.[^@\s]+', MANIFEST.find('maintainer').get('email'))
    assert MANIFEST.findtext('license') == 'Apache-2.0'
    assert MANIFEST.findtext('export/build_type') == 'ament_python'


def test_manifest_orders_its_elements_as_the_schema_does():
    order = ['name', 'version', 'description', 'maintainer', 'license', 'url', 'author']
    tags = [child.tag for child in MANIFEST if isinstance(child.tag, str)]
    head = [tag for tag in tags if tag in order]
    assert head == sorted(head, key=order.index)
    assert tags[-1] == 'export'
    depends = [child.text for child in MANIFEST if str(child.tag).endswith('depend')]
    assert len(set(depends)) == len(depends), f'dependencies repeat: {depends}'


def test_every_library_that_is_imported_is_a_dependency():
    sources = [*ROOT.glob('hybrid_seg_ros/**/*.py'), *ROOT.glob('launch/*.py')]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    libraries = {name.partition('.')[0] for name in names} - set(sys.stdlib_module_names) - {'hybrid_seg_ros'}
    assert {'rclpy', 'torch', 'cv2'} <= libraries
    manifest = {child.text for child in MANIFEST if child.tag in ('depend', 'exec_depend')}
    pinned = {name for file in ('base', 'backends', 'ros', 'torch') for name in re.findall(
        r'^([\w-]+)==', (ROOT / 'requirements' / f'{file}.txt').read_text(), re.MULTILINE)}
    pinned |= {'cv2', 'yaml', 'google', 'cuda', 'PIL'}  # under another name
    unknown = {name for name in libraries - manifest if name.replace('_', '-') not in pinned}
    assert not unknown, f'neither package.xml nor requirements/ has {sorted(unknown)}'
    assert {'python3-opencv', 'python3-yaml', 'python3-numpy'} <= manifest
    assert {'opencv-python-headless', 'PyYAML', 'numpy'} <= pinned


def test_one_version_everywhere(metadata):
    version = MANIFEST.findtext('version')
    changelog = (ROOT / 'CHANGELOG.rst').read_text(encoding='utf-8')
    changes = re.findall(r'^(\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)\n-+$', changelog, re.MULTILINE)
    assert metadata['version'] == hybrid_seg_ros.__version__ == changes[0] == version


def test_licence_is_the_whole_text():
    text = (ROOT / 'LICENSE').read_text(encoding='utf-8')
    assert 'Version 2.0, January 2004' in text and 'END OF TERMS AND CONDITIONS' in text


def test_programs_can_be_imported(metadata):
    programs = dict(re.split(r'\s*=\s*', line) for line in metadata['entry_points']['console_scripts'])
    assert set(programs) == {'hybrid_seg', 'segmentation_node'}
    for target in programs.values():
        module, function = target.split(':')
        assert callable(getattr(importlib.import_module(module), function))


def test_every_folder_of_sources_is_installed(metadata):
    folders = {path.parent.relative_to(ROOT).as_posix().replace('/', '.')
               for path in (ROOT / 'hybrid_seg_ros').rglob('*.py')}
    assert set(metadata['packages']) == folders, 'a folder without __init__.py is not installed'


def test_every_file_beside_the_sources_is_installed(metadata):
    patterns = metadata['package_data']['hybrid_seg_ros']
    installed = {path for pattern in patterns for path in (ROOT / 'hybrid_seg_ros').glob(pattern)}
    beside = {path for path in (ROOT / 'hybrid_seg_ros').rglob('*')
              if path.is_file() and path.suffix not in ('.py', '.pyc')}  # fmt: skip
    assert beside and beside <= installed


def test_every_shared_file_is_installed(metadata):
    installed = {path: folder for folder, paths in metadata['data_files'] for path in paths}
    assert installed['resource/hybrid_seg_ros'] == 'share/ament_index/resource_index/packages'
    assert installed['package.xml'] == 'share/hybrid_seg_ros'
    for name in SHARED_FOLDERS:
        files = [path for path in (ROOT / name).rglob('*') if path.is_file() and '__pycache__' not in path.parts
                 and path.suffix != '.partial']
        for path in (path.relative_to(ROOT).as_posix() for path in files):
            assert installed.get(path) == f'share/hybrid_seg_ros/{os.path.dirname(path)}', path
    assert not [path for path in installed if not (ROOT / path).is_file()]


def test_every_requirement_has_its_version():
    files = sorted((ROOT / 'requirements').glob('*.txt'))
    assert files
    lines = [(path.name, line.split('#')[0].strip()) for path in files for line in path.read_text().splitlines()]
    for name, line in lines:
        is_pinned = re.match(r'[\w.-]+==[\w.]+(\s*;.+)?$', line)
        assert not line or is_pinned or re.match(r'-[rc] \w+\.txt$', line), f'{name}: {line!r} pins no version'
