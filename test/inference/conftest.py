"""A tiny model and the graphs of it that tests export: made once, by whichever test, process or worker needs them."""

import os
from pathlib import Path

import pytest
import torch
from tiny_model import write_lively_model

from hybrid_seg_ros.model_spec import ModelSpec

torch.set_num_threads(1)  # tiny models are fastest on one, and others may need the cores


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
    """A folder of graphs; several processes may export into it at once."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if 'PYTEST_XDIST_WORKER' in os.environ else folder
    return Path(os.environ.get('SHARED_GRAPH_CACHE', folder / 'graph_cache'))


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    return write_lively_model(tmp_path_factory.mktemp('tiny'), policy='patch_mlp')


@pytest.fixture(scope='session')
def spec(tiny):
    return ModelSpec.load(tiny)
