"""Linters run as tests, so that `make test` is all there is to pass.

ament_flake8, ament_pep257 and ament_copyright are not on PyPI; ruff.toml has their rules, where they agree with this
package's style. ament_copyright wants a licence header in each file, here LICENSE stands for all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SHELL_SCRIPTS = ['.ci/run', 'requirements/make_venv.sh']
YAML_FILES = sorted(path for folder in ('config', 'models') for path in (ROOT / folder).rglob('*.yaml'))


def test_ruff():
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--no-cache', '--output-format', 'concise', '.'],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('script', SHELL_SCRIPTS)
def test_shell_script(script):
    done = subprocess.run(['bash', '-n', script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (ROOT / script).stat().st_mode & 0o111, f'{script} is not executable'


@pytest.mark.parametrize('path', YAML_FILES, ids=lambda path: path.name)
def test_yaml_loads(path):
    class UniqueKeys(yaml.SafeLoader):
        """A loader that does not let a key repeat."""

        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            assert len(set(keys)) == len(keys), f'{path.name}: keys repeat in {keys}'
            return super().construct_mapping(node, deep)

    assert yaml.load(path.read_text(encoding='utf-8'), Loader=UniqueKeys) is not None


def test_no_trace_of_somebody_s_machine():
    """Absolute paths of one machine, and merge markers, have no place in the sources."""
    suffixes = {'.py', '.md', '.rst', '.yaml', '.xml', '.cfg', '.toml', '.txt', '.sh', '.rviz', ''}
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('not a git checkout')
    found = []
    for path in (ROOT / name for name in listed.stdout.splitlines() if Path(name).suffix in suffixes):
        if path == Path(__file__) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            if any(mark in line for mark in ('/home/', '/root/', '/Users/', '<<<<<<<', '>>>>>>>')):
                found.append(f'{path.relative_to(ROOT)}:{number}: {line.strip()}')
    assert not found, '\n'.join(found)
