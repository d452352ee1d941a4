"""Compile CUDA C at run time (NVRTC), for the GPU that is there; needs no GPU itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybrid_seg_ros.inference.backends.cuda_device import INSTALL

OPTIONS = (b'--fmad=false',)  # rounds as the CPU does


class KernelError(RuntimeError):
    """A kernel that cannot be compiled here."""


def compile_kernel(path: Path, compute_capability: int) -> bytes:
    """Return the CUDA C file `path` as machine code for a GPU, 87 for 8.7, or for a newer one than NVRTC knows as PTX.

    Raises KernelError with the compiler's log, or where there is no NVRTC.
    """
    try:
        from cuda.bindings import nvrtc

        architectures = _call(nvrtc, nvrtc.nvrtcGetSupportedArchs)
    except (ImportError, OSError, RuntimeError) as error:
        raise KernelError(f'no NVRTC to compile {path.name} with ({error}); it comes with CUDA, or by '
                          f'pip install nvidia-cuda-nvrtc-cu12; cuda-bindings: {INSTALL}') from error  # fmt: skip
    known = compute_capability in architectures
    older = [each for each in architectures if each < compute_capability]
    if not known and not older:
        raise KernelError(f'{path.name}: this NVRTC compiles for {list(architectures)}, not for {compute_capability}')
    target = f'sm_{compute_capability}' if known else f'compute_{max(older)}'
    program = _call(nvrtc, nvrtc.nvrtcCreateProgram, path.read_bytes(), path.name.encode(), 0, [], [])
    options = [f'--gpu-architecture={target}'.encode(), *OPTIONS]
    try:
        _call(nvrtc, nvrtc.nvrtcCompileProgram, program, len(options), options)
    except KernelError as error:
        messages = _text(nvrtc, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        raise KernelError(f'{path.name}: {error}: {messages.decode()}') from error
    if known:
        return _text(nvrtc, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    return _text(nvrtc, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)


def _text(nvrtc: Any, size_of: Callable[..., Any], write: Callable[..., Any], program: Any) -> bytes:
    buffer = b' ' * _call(nvrtc, size_of, program)
    _call(nvrtc, write, program, buffer)  # writes into the bytes object, which is how cuda-bindings has it
    return buffer


def _call(nvrtc: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    status, *values = function(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise KernelError(f'{function.__name__}: {nvrtc.nvrtcGetErrorString(status)[1].decode()}')
    return values[-1] if values else None
