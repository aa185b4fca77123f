"""Runs in the checkout of any commit: compiles one model with the compiler that is there.

The request is the one argument, as JSON: "model", "library" (to write), "target", "dims", "explain"
(the dims with which to ask what is left of movement; may be missing) and "dump" (a prefix for the
generated code; may be missing). What it prints is one JSON object. Only tvmext's public functions
are called, since commits differ.
"""

import json
import resource
import sys
import time
from pathlib import Path

import tvmext

SIDE = ("kernels", "planned_bytes", "kernel_bytes", "bytes_moved")


def child_seconds() -> float:
    """Processor seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    request = json.loads(sys.argv[1])
    options = {"target": request["target"], "dims": request["dims"]}
    try:
        found = compiled(request, options)
        if "explain" in request:
            ours = explained(request)
            left = len(ours["movement_kernels_left"])
            found |= {name: ours[name] for name in SIDE} | {"movement_left": left}
    except tvmext.errors.TvmextError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(found))
    return 0


def explained(request: dict) -> dict:
    """What `tvmext explain` finds on our side."""
    dims = {n: tuple(d) if isinstance(d, list) else d for n, d in request["explain"].items()}
    found = tvmext.explain(request["model"], target=request["target"], dims=dims).to_json()
    return found["ours"]


def compiled(request: dict, options: dict) -> dict:
    """Seconds, bytes of the library and of the compiling process at its largest."""
    if request.get("dump"):
        dumped = tvmext.Options(dump_code=("relax", "tir"))
        options = {**options, "options": dumped, "dump_prefix": request["dump"]}
    before, started = child_seconds(), time.monotonic()
    made = tvmext.compile(request["model"], cache="off", **options)
    seconds, wall = child_seconds() - before, time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    library = Path(request["library"])
    made.save(library)
    return {
        "compile_seconds": seconds,
        "compile_wall": wall,
        "compiler_bytes": memory,
        "library_bytes": library.stat().st_size,
    }


if __name__ == "__main__":
    sys.exit(main())
