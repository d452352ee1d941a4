"""`make venv` says at once what is missing, before anything is downloaded."""

from __future__ import annotations

import os
import re
import subprocess
import venv
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / 'requirements' / 'make_venv.sh'

PRETENDED_PYTHON = """#!/bin/bash
case "$*" in
    */bin/python*) echo {below} ;;
    *'3, 10'*) exit {old} ;;
    *'import venv'*) exit {without_venv} ;;
    *'import rclpy'*) exit {without_rclpy} ;;
    *'import numpy'*) exit {without_numpy} ;;
    --version) echo 'Python 3.9.1' ;;
    *sys*) echo 3.12 ;;
    *) exit 1 ;;
esac
"""
PRETENDED_UNAME = """#!/bin/bash
[ "$1" = -m ] && echo {machine} || echo Linux
"""


@pytest.fixture
def make_venv(tmp_path):
    """Run the script in an empty folder, on a machine made up of the given answers."""

    def run(machine='x86_64', python='python_of_the_test', **answers):
        answers = {'below': '', 'old': 0, 'without_venv': 0, 'without_rclpy': 1, 'without_numpy': 0, **answers}
        system = {**answers, 'below': '', 'without_rclpy': 1}
        for name, text in (('python_of_the_test', PRETENDED_PYTHON.format(**answers)),
                           ('python_of_the_system', PRETENDED_PYTHON.format(**system)),
                           ('uname', PRETENDED_UNAME.format(machine=machine))):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': python}
        done = subprocess.run(['bash', str(SCRIPT), 'requirements'], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 1, done.stdout + done.stderr
        assert not (tmp_path / '.venv').exists()
        return done.stderr

    return run


def test_no_python(make_venv):
    assert "no 'no_such_python' here" in make_venv(python='no_such_python')


def test_python_of_an_unsupported_version(make_venv):
    assert 'expected Python 3.10 to 3.13, got Python 3.9.1' in make_venv(old=1)


def test_python_without_venv(make_venv):
    assert 'sudo apt install python3.12-venv' in make_venv(without_venv=1)


def test_machine_without_ros_wheels(make_venv):
    message = make_venv(machine='aarch64')
    assert 'this is Linux on aarch64' in message
    assert 'source /opt/ros' in message


def test_sourced_ros_without_numpy(make_venv):
    assert 'sudo apt install python3-numpy python3-opencv' in make_venv(
        machine='aarch64', without_rclpy=0, without_numpy=1)


def test_an_activated_environment_is_no_sourced_ros(make_venv):
    # its own Python finds ROS 2's wheels; with them taken for a ROS 2 that is sourced, numpy would be missing next
    message = make_venv(machine='aarch64', without_rclpy=0, without_numpy=1, below='python_of_the_system')
    assert 'this is Linux on aarch64' in message and 'ROS 2 is sourced' not in message


def test_the_python_below_an_environment_is_what_python_says_it_is(tmp_path):
    """What the script asks, of a real environment: the pretended Pythons above answer whatever they are told."""
    venv.create(tmp_path / 'activated', with_pip=False)
    question = re.search(r"local below='(.+?)'", SCRIPT.read_text(), re.DOTALL)[1]
    ask = [str(tmp_path / 'activated/bin/python'), '-c', question]
    below = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    assert below and not below.startswith(str(tmp_path))
    assert subprocess.run([below, '-c', question], capture_output=True, text=True, check=True).stdout.strip() == ''
