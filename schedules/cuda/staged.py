"""What the rules for light kernels share: a kernel as stages, and a function of their launches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tvm import tirx
from tvm.ir import Var
from tvm.tirx import Stmt

from ..kernel.access import Homes, stores
from ..kernel.axes import product
from ..kernel.emit import allocate, block
from ..kernel.stages import Stage, Stages, stages
from ..kernel.view import view
from ..rule import Declined, Kernel


def as_stages(kernel: Kernel) -> Stages | Declined:
    """The kernel's stages, or the reason why it has none."""
    seen = view(kernel.func, own_bounds=True)
    return seen if isinstance(seen, Declined) else Stages(stages(seen))


def handed_over(func: tirx.PrimFunc, found: Sequence[Stage], private: Iterable[Var] = ()) -> Homes:
    """Flat buffers in device memory for what one launch leaves to another.

    Flat, as all accesses are: TVM shrinks a buffer to what it sees of each dim. `private` are
    buffers that a launch keeps to itself.
    """
    known = {*func.params, *private}
    own = dict.fromkeys(w.buffer for s in found for w in stores(s) if w.buffer not in known)
    return {
        b: (allocate([product(b.shape)], str(b.ty.dtype), b.name), tuple(range(len(b.shape))))
        for b in own
    }


def function(func: tirx.PrimFunc, homes: Homes, parts: Sequence[Stmt]) -> tirx.PrimFunc:
    """`func` as launches one after another, with what they hand over to each other."""
    body = block(*(tirx.AllocBuffer(home) for home, _ in homes.values()), *parts)
    return tirx.PrimFunc(func.params, body, func.ret_type, func.attrs)
