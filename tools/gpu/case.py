"""One network of the zoo, compiled for a GPU: ``python -m tools.gpu.case NETWORK MODE ARCH``.

MODE is "static", "dynamic", or a type and a batch as benchmarks have them ("float16-b1"). With ARCH
"here" it is compiled for the GPU of this machine, run, and compared with ONNX Runtime. Prints one
JSON object (see `measure`); an error ends it with its message and exit code.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from tests.zoo import light

from ..zoo.case import drawn, verified
from ..zoo.runner import answer
from .networks import fix_dims, narrowed

HERE = "here"


def measure(network: str, mode: str, arch: str) -> dict[str, Any]:
    """Compile one network; what it took and what came of it.

    Keys: "seconds" of compilation and "cpu_seconds" of all cores, "bytes" of the library, and those
    of `summary`; on a GPU also those of ``zoo.case.verified``.
    """
    import tvmext

    said = ""

    def hear(progress: Any) -> None:
        nonlocal said
        said = progress.detail or said

    target = "cuda" if arch == HERE else f"cuda -arch={arch}"
    with given(network, mode) as (path, inputs, dims):
        started = time.monotonic()
        compiled = tvmext.compile(path, target, dims=dims, progress=hear)
        seconds = time.monotonic() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the compiler, all its threads
        library = path.with_suffix(".so")
        compiled.save(library)
        size = library.stat().st_size
        checked = verified(path, compiled, inputs) if arch == HERE else {}
    return {
        **checked,
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "bytes": size,
        "built": said,
        **summary(compiled.metadata.usage, compiled.metadata.decisions),
    }


@contextmanager
def given(network: str, mode: str) -> Iterator[tuple[Path, Any, dict[str, int] | None]]:
    """As ``zoo.case.drawn``, for types and batches too; those have no inputs."""
    dtype, _, batch = mode.partition("-b")
    if not batch:
        with drawn(network, mode) as whole:
            yield whole
        return
    with drawn(network, "static") as (path, _, _):
        model = onnx.load(path)
        fix_dims(model, light.make_inputs(model, batch=int(batch)))
        converted = path.with_name("converted.onnx")
        light.save(narrowed(model, dtype), converted)
        del model
        yield converted, [], None


def summary(
    usage: Mapping[str, Mapping[str, int]], decisions: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the kernels of a library take.

    Keys: "kernels", "code" (bytes of machine code), "registers" (most of a thread), "spills"
    ({kernel: bytes}), "stack" ({kernel: bytes} of the others that use local memory), "rules"
    ({rule: kernels}), and "slow", the kernels that move one element per thread.
    """
    rules: dict[str, int] = {}
    for one in decisions.values():
        rules[one["rule"]] = rules.get(one["rule"], 0) + 1
    spills = {name: used["spill_stores"] for name, used in usage.items() if used["spill_stores"]}
    return {
        "kernels": len(usage),
        "code": sum(used["code"] for used in usage.values()),
        "registers": max((used["registers"] for used in usage.values()), default=0),
        "spills": spills,
        "stack": {
            name: used["stack"]
            for name, used in usage.items()
            if used["stack"] and name not in spills
        },
        "rules": rules,
        "slow": sorted(name for name, one in decisions.items() if is_slow(one)),
    }


def is_slow(decision: Mapping[str, Any]) -> bool:
    """Whether a kernel runs on one thread, or moves one element per thread."""
    if decision["rule"] == "fallback":
        return not decision["decision"]["has_threads"]
    return any(plan.get("mode") == "strided" and plan.get("lanes") == 1 for plan in plans(decision))


def plans(decision: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of a decision, one per launch, of all ways that a launch chooses among."""
    made = decision["decision"]
    for part in made if isinstance(made, list) else [made]:
        yield part
        ways = [way for way in part.values() if isinstance(way, list)]
        yield from (one for way in ways for one in way if isinstance(one, dict))


def main() -> int:
    """Compile the network of the command line; the exit code of what went wrong, else 0."""
    return answer(lambda: measure(*sys.argv[1:4]))


if __name__ == "__main__":
    sys.exit(main())
