"""What is left of movement in the zoo: ``python -m tools.zoo.movement [--only 'swin*']``.

Compiles each network up to its kernels (no code is generated) and lists the kernels that only move
data: how many, how many bytes they write, and why they remained. `--kernels` lists each.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.zoo import light

from .case import ZOO, bound_dims, modes, networks, sizes


def kernels_of(network: str, mode: str, options: Any = None) -> tuple[Any, int]:
    """The module that is to be scheduled, and how many kernels it calls."""
    import tvm

    from tvmext.arch import resolve, to_target
    from tvmext.frontends import load
    from tvmext.options import Options
    from tvmext.passes import lower

    model = light.load(ZOO / f"{network}.onnx")
    described = {entry.key: entry.value for entry in model.metadata_props}["light.inputs"]
    stored = json.loads(described)["dims"]
    dims = None
    if mode == "static":
        dims = bound_dims(model, light.make_inputs(model, **next(sizes(stored, mode))))
    caught: list[tvm.IRModule] = []

    @tvm.transform.module_pass(opt_level=0, name="Caught")
    def catch(mod: Any, _ctx: Any) -> Any:
        caught.append(mod)
        return mod

    with tempfile.TemporaryDirectory(prefix="tvmext-zoo-") as folder:
        path = Path(folder) / "model.onnx"
        light.save(model, path)
        loaded = load(str(path), dims=dims or {}, trust=False, model_format=None, name=network)
        target = tvm.target.Target(to_target(resolve("llvm")))
        lower(loaded, catch, target, options or Options(), lambda *_: None)
    return caught[0], _calls(caught[0])


def _calls(mod: Any) -> int:
    from tvm import relax

    found: list[Any] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Call) and expr.op.name.startswith("relax.call_tir"):
            found.append(expr)

    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return len(found)


def main() -> None:
    """Print the table, and the kernels if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=["*"], metavar="PATTERN")
    parser.add_argument("--mode", choices=("static", "dynamic"), default="static")
    parser.add_argument("--kernels", action="store_true", help="list each kernel")
    args = parser.parse_args()

    from tvmext.passes.virtual.check import movement_kernels

    print("| network | kernels | that move | forced | priced | no rule | MB written |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    total: Counter[str] = Counter()
    for network in networks():
        if args.mode not in modes(network):
            continue
        if not any(fnmatch.fnmatch(network, pattern) for pattern in args.only):
            continue
        mod, calls = kernels_of(network, args.mode)
        left = movement_kernels(mod)
        count = Counter(kernel.reason for kernel in left)
        count |= {"kernels": calls, "move": len(left), "bytes": sum(k.bytes or 0 for k in left)}
        total += count
        print(_row(network, count), flush=True)
        if args.kernels:
            for kernel in left:
                print(f"    {kernel.name} {kernel.bytes} {kernel.reason}: {kernel.detail}")
    print(_row("all", total))


def _row(name: str, count: Counter[str]) -> str:
    columns = [count[key] for key in ("kernels", "move", "forced", "priced", "no rule")]
    return f"| {name} | {' | '.join(map(str, columns))} | {count['bytes'] / 1e6:.2f} |"


if __name__ == "__main__":
    main()
