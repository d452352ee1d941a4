"""A GPU and a TensorRT made of the host: the driver of host_cuda.c, and ONNX Runtime in the place of engines.

They let the real TensorRtRunner, Gpu and ScoreKeeper run, through the real cuda-bindings, where there is no GPU. The
driver must be loaded before anything asks for libcuda.so.1: in a process of its own.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from hybrid_seg_ros.inference.backends.base import thread_limit
from hybrid_seg_ros.inference.backends.tensorrt import label_map
from hybrid_seg_ros.inference.backends.tensorrt.label_map import KernelError, compile_kernel

SOURCE = Path(__file__).with_name('host_cuda.c')
LIBRARY = 'libcuda.so.1'
C_COMPILER = 'cc'
NAMES = {'tensor(float)': 'FLOAT', 'tensor(float16)': 'HALF', 'tensor(int32)': 'INT32', 'tensor(uint8)': 'UINT8'}
DTYPES = {'FLOAT': np.float32, 'HALF': np.float16, 'INT32': np.int32, 'UINT8': np.uint8}


def needs_nvrtc() -> None:
    """Skip a test where CUDA's run-time compiler or cuda-bindings is not installed."""
    try:
        compile_kernel(label_map.KERNEL_FILE, 89)
    except KernelError as error:
        if 'no NVRTC' not in str(error):
            raise
        pytest.skip(str(error))


def compile_c(source: Path, output: Path, *options: str) -> ctypes.CDLL:
    """Compile C, or CUDA C as C, into a shared library that rounds as NumPy does, and load it for all to see."""
    include = Path(label_map.__file__).parent
    command = [C_COMPILER, '-std=gnu11', '-O2', '-Wall', '-Werror', '-ffp-contract=off', '-shared', '-fPIC',
               f'-I{include}', *options, '-x', 'c', str(source), '-o', str(output), '-ldl', '-lpthread']  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(output), mode=ctypes.RTLD_GLOBAL)


def load_driver(folder: Path) -> ctypes.CDLL:
    """Compile the driver and load it as the libcuda.so.1 of this process."""
    return compile_c(SOURCE, folder / LIBRARY, f'-Wl,-soname,{LIBRARY}')


class HostEngine:
    """What TensorRtRunner uses of an ICudaEngine; dynamic axes are at most `longest`."""

    def __init__(self, path: Path, driver: ctypes.CDLL, longest: int) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = thread_limit()  # as the backend it is compared with: float16 rounds by it
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=['CPUExecutionProvider'])
        self.driver, self.longest = driver, longest
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.tensors = {value.name: value for value in (*self.session.get_outputs(), *self.session.get_inputs())}
        symbols = {value.name: value for value in onnx.load(str(path), load_external_data=False).graph.output}
        self.symbols = {name: [side.dim_param for side in value.type.tensor_type.shape.dim]
                        for name, value in symbols.items()}  # fmt: skip

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name='INPUT' if name in self.inputs else 'OUTPUT')

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=NAMES[self.tensors[name].type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(side if isinstance(side, int) else -1 for side in self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [tuple(n if side < 0 else side for side in self.get_tensor_shape(name)) for n in (1, 2, self.longest)]

    def create_execution_context(self) -> 'HostContext':
        return HostContext(self)


class HostContext:
    """What it uses of an IExecutionContext: work goes to the stream, with the shapes and addresses of that moment."""

    def __init__(self, engine: HostEngine) -> None:
        self.engine = engine
        self.shapes = {name: engine.get_tensor_shape(name) for name in engine.inputs}
        self.addresses: dict[str, int] = {}
        self.queued = []  # ctypes callbacks must outlive their calls, which a captured graph repeats
        self.launched = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.get_tensor_profile_shape(name, 0)
        legal = len(shape) == len(least) and all(low <= n <= high for low, n, high in zip(least, shape, most))
        if legal:
            self.shapes[name] = tuple(shape)
        return legal

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sides = {symbol: n for each in self.engine.inputs
                 for symbol, n in zip(self.engine.tensors[each].shape, self.shapes[each]) if isinstance(symbol, str)}
        return tuple(sides[symbol] if symbol else n for symbol, n in
                     zip(self.engine.symbols[name], self.engine.get_tensor_shape(name)))  # fmt: skip

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def execute_async_v3(self, stream: int) -> bool:
        addresses, shapes = dict(self.addresses), dict(self.shapes)
        shapes.update((name, self.get_tensor_shape(name)) for name in self.engine.outputs)
        if set(addresses) != set(self.engine.tensors) or min(min(shape) for shape in shapes.values()) < 1:
            return False

        def memory(name: str) -> np.ndarray:
            dtype = np.dtype(DTYPES[NAMES[self.engine.tensors[name].type]])
            place = (ctypes.c_uint8 * (int(np.prod(shapes[name])) * dtype.itemsize)).from_address(addresses[name])
            return np.frombuffer(place, dtype).reshape(shapes[name])

        def run(_: None) -> None:
            found = self.engine.session.run(self.engine.outputs, {name: memory(name) for name in self.engine.inputs})
            for name, value in zip(self.engine.outputs, found):
                memory(name)[...] = value

        self.queued.append(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(run))
        return not self.engine.driver.cuLaunchHostFunc(ctypes.c_void_p(stream), self.queued[-1], None)
