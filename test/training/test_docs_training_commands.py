"""The pages' training commands run, on a model and data of test size; docs/training.md has test_training_page.py."""

from __future__ import annotations

import pytest
from docs_checkout import Checkout
from docs_runs import identify, runs
from docs_table import TRAINING


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp('checkout') / 'hybrid_seg_ros')


@pytest.mark.parametrize('command', runs(of=TRAINING), ids=identify)
def test_command(checkout, command):
    checkout.run(command)
