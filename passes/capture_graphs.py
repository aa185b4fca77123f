"""What is launched at every run alike becomes a CUDA graph, one launch for many kernels.

    main:  s = alloc_storage(bytes)                     main:  s = cached storage
           f(x, s);  g(s, s');  h(s', out)    becomes          f(x, s);  graph(s);  h(s', out)

TVM's RewriteCUDAGraph takes runs of kernels that read and write nothing but intermediate results of
known size and weights: these stay where they are, for as long as the virtual machine. The first run
launches the kernels as they are, then once more for the graph to be captured. Inputs and results
are the caller's and not captured.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.relax.transform import RewriteCUDAGraph

from tvmext.errors import OptionError


@tvm.transform.module_pass(opt_level=0, name="CaptureGraphs")
class CaptureGraphs:
    """Capture what can be; memory is planned before. `refuse_scratch` says what cannot."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        with tvm.transform.PassContext(config={"relax.backend.use_cuda_graph": True}):
            return RewriteCUDAGraph()(mod)


def refuse_scratch(mod: tvm.IRModule) -> None:
    """Raises OptionError if a kernel takes memory of the device when it runs.

    That memory belongs to the thread that runs it and ends with it; a graph keeps its address.
    """
    for var, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc) and _has_scratch(func):
            raise OptionError(
                f"cuda_graph: kernel '{var.name_hint}' takes scratch memory when it runs, of which "
                "a graph would keep the address",
                hint="compile without cuda_graph",
            )


def _has_scratch(func: tirx.PrimFunc) -> bool:
    """Whether a kernel allocates memory of the device."""
    own: list[Any] = []
    tvm_ffi.structural_walk(func.body, (tirx.AllocBuffer, lambda made: own.append(made.buffer)))
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, lambda made: own.extend(made.alloc_buffers)))
    return any(buffer.scope() in ("", "global") for buffer in own)
