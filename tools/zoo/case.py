"""One network of the zoo, compiled, verified and timed: ``python -m tools.zoo.case NETWORK MODE``.

Prints one JSON object (see `measure`). An error ends it as it would end the command line: the
message on stderr and the exit code of `tvmext.errors`. The tool runs this for every network.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from tests.zoo import light

from .runner import answer
from .sizes import verified_at

ZOO = Path(__file__).resolve().parents[2] / "tests" / "zoo"

TIMING_SECONDS = 6.0
VERIFY_SECONDS = 150.0
"""For many sizes; what is left then is told."""

MODES = ("static", "dynamic")


def networks() -> list[str]:
    """The names of all networks of the zoo, exports before the blocks of the VTC paper."""
    names = [path.name.removesuffix(".onnx") for path in ZOO.glob("*.onnx")]
    return sorted(names, key=lambda name: (name.startswith("vtc_"), name))


def modes(network: str) -> tuple[str, ...]:
    """In which of "static" and "dynamic" a network is compiled: as its export allows.

    The VTC blocks are static: in the paper their sizes are fixed.
    """
    return MODES if network.endswith(".dyn") else ("static",)


def wanted(pattern: str, only: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The networks that a pattern such as 'bert*' names, in the modes named or, if none is, all."""
    return [
        (network, mode)
        for network in networks()
        if fnmatch.fnmatch(network, pattern)
        for mode in modes(network)
        if mode in (only or MODES)
    ]


def sizes(stored: dict[str, int], mode: str) -> Iterator[dict[str, int]]:
    """The sizes to verify at: the stored ones with batch 1, and for "dynamic" two more."""
    yield stored | ({"batch": 1} if "batch" in stored else {})
    if mode == "static":
        return
    other = {
        "batch": (3, 2),
        "text_batch": (1, 4),
        "seq": (7, 21),
        "past": (1, 12),
        "height": (64, 160),
        "width": (96, 64),
    }
    for turn in range(2):
        yield {name: other[name][turn] for name in stored}


def stored_dims(model: onnx.ModelProto) -> dict[str, int]:
    """The dims of a network, and the sizes it was exported with."""
    described = {entry.key: entry.value for entry in model.metadata_props}["light.inputs"]
    dims: dict[str, int] = json.loads(described)["dims"]
    return dims


@contextmanager
def drawn(
    network: str, mode: str
) -> Iterator[tuple[Path, list[dict[str, Any]], dict[str, int] | None]]:
    """A network with its weights drawn: a file, inputs at each of the sizes, and the dims to bind.

    The folder of the file goes with the context.
    """
    model = light.load(ZOO / f"{network}.onnx")
    stored = stored_dims(model)
    inputs = [light.make_inputs(model, **size) for size in sizes(stored, mode)]
    dims = bound_dims(model, inputs[0]) if mode == "static" else None
    with tempfile.TemporaryDirectory(prefix="tvmext-zoo-") as folder:
        path = Path(folder) / "model.onnx"
        light.save(model, path)
        del model
        yield path, inputs, dims


def measure(
    network: str, mode: str, threads: Sequence[int], many: int = 0, **tolerance: float
) -> dict[str, Any]:
    """Compile and verify one network, and time it with each number of `threads`.

    Keys: "seconds" (compile), "bytes" (of the library), "compiler_rss" (peak, bytes), "passed",
    "max_abs" and "detail" over all sizes, and "latency": the figures of one call
    (tools/bench/figures.py) by number of threads. With `many`, it is verified at as many sizes of
    every dim (sizes.py). `tolerance` is "rtol" and "atol", by default those of `verify`.
    """
    import tvmext

    with drawn(network, mode) as (path, inputs, dims):
        started = time.monotonic()
        compiled = tvmext.compile(path, dims=dims)
        seconds = time.monotonic() - started
        rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        library = path.with_suffix(".so")
        compiled.save(library)
        result = {"seconds": seconds, "bytes": library.stat().st_size, "compiler_rss": rss}
        if many:
            recipe = onnx.load(ZOO / f"{network}.onnx", load_external_data=False)
            free = compiled.metadata.dims
            named = [name for name in stored_dims(recipe) if name in free]
            result |= verified_at(path, recipe, compiled, named, many, VERIFY_SECONDS)
        else:
            result |= verified(path, compiled, inputs, **tolerance)
        if threads:
            from ..bench.models import latency

            result["latency"] = {
                str(count): latency(path, library, inputs[0], TIMING_SECONDS, count)
                for count in threads
            }
    return result


def bound_dims(model: Any, inputs: dict[str, Any]) -> dict[str, int]:
    """The size of every named dim of the graph inputs, read off the arrays."""
    return {
        dim.dim_param: size
        for value in model.graph.input
        if value.name in inputs
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name].shape)
        if dim.dim_param
    }


def verified(
    path: Path, compiled: Any, inputs: list[dict[str, Any]], **tolerance: float
) -> dict[str, Any]:
    """Compare with ONNX Runtime on each of `inputs`."""
    import tvmext

    reports = [
        tvmext.verify(path, compiled=compiled, inputs=given, reference="onnxruntime", **tolerance)
        for given in inputs
    ]
    outputs = [o for report in reports for case in report.cases for o in case.outputs]
    failed = [output for output in outputs if not output.passed]
    return {
        "passed": not failed,
        "sizes": len(reports),
        "max_abs": max((float(output.max_abs) for output in outputs), default=0.0),
        "detail": told(failed[0]) if failed else "",
    }


def told(failed: Any) -> str:
    """One line about an output that differs."""
    if failed.problem:
        return f"{failed.name}: {failed.problem}"
    return (
        f"{failed.name}: {failed.failed} of {failed.total} elements differ, "
        f"max abs {failed.max_abs:.1e}, max rel {failed.max_rel:.1e}"
    )


def counts(text: str) -> list[int]:
    """Numbers of threads: "1,2"."""
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Measure the network of the command line; the exit code of what went wrong, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=networks(), metavar="NETWORK")
    parser.add_argument("mode", choices=("static", "dynamic"))
    parser.add_argument(
        "--latency", type=counts, default=[], metavar="THREADS", help="time it, as 1,2"
    )
    parser.add_argument("--sizes", type=int, default=0, metavar="N", help="of every dim")
    parser.add_argument("--rtol", type=float)
    parser.add_argument("--atol", type=float)
    args = parser.parse_args()
    named = {"rtol": args.rtol, "atol": args.atol}
    tolerance = {name: value for name, value in named.items() if value is not None}

    return answer(lambda: measure(args.network, args.mode, args.latency, args.sizes, **tolerance))


if __name__ == "__main__":
    sys.exit(main())
