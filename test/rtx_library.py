"""TensorRT for RTX, which builds engines where there is no GPU."""

import importlib
import os
import platform

import pytest

from hybrid_seg_ros.inference.backends.tensorrt.library import MODULES, TensorRt, find_tensorrt


def rtx_library() -> TensorRt:
    """Return it, also where TensorRT proper is installed beside it; skip where there is none, but not in CI."""
    if os.environ.get('CI') and platform.machine() == 'x86_64':
        importlib.import_module('tensorrt_rtx_bindings')  # what these tests prove must not go missing in silence
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT for RTX, which needs no GPU, is not installed')
    return find_tensorrt({name: flavour for name, flavour in MODULES.items() if flavour == 'tensorrt_rtx'})
