"""What the tests of evaluation share: one thread, a tiny model and a tiny dataset."""

from __future__ import annotations

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def camvid_root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=1, val=2)


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))
