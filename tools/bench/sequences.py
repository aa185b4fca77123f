"""Networks whose sizes change with every call: sentences of any length, and decoding with a cache.

Compiled once with every dim free, as MikPoly (ASPLOS 2024) measures it; ONNX Runtime has dynamic
axes. Both sides take turns, call by call, in an order that alternates.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import tvmext
from tvmext.measure.agreement import agreement
from tvmext.measure.rivals import session_of

from . import report
from .cases.case import Arrays

ZOO = Path(__file__).resolve().parents[2] / "tests" / "zoo"
SHORTEST, LONGEST = 5, 500
OURS, RIVAL = "tvmext", "onnxruntime"
Row = dict[str, Any]
Run = Callable[[Arrays], Mapping[str, np.ndarray]]


def add(commands: Any) -> None:
    """The subcommands."""
    one = commands.add_parser("sentences", help="sentences of 5 to 500 tokens, one compile")
    one.add_argument("--count", type=int, default=150, metavar="N", help="sentences")
    one.add_argument("--network", default="bert_base.legacy.dyn")
    one.set_defaults(run=_sentences)
    other = commands.add_parser("decode", help="a prompt, then token by token with a growing cache")
    other.add_argument("--prompt", type=int, default=16, metavar="N", help="tokens")
    other.add_argument("--count", type=int, default=64, metavar="N", help="tokens to decode")
    other.add_argument("--network", default="gpt2.legacy.dyn")
    other.set_defaults(run=_decode)
    for parser in (one, other):
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--compile", action="store_true", help="compile only")
        parser.add_argument("--folder", type=Path, default=Path("build/sequences"))
        parser.add_argument("--json", type=Path, default=Path("build/bench-sequences.json"))


def lengths(count: int, seed: int) -> list[int]:
    """Lengths of sentences, each as likely as the others."""
    draw = random.Random(seed)
    return [draw.randint(SHORTEST, LONGEST) for _ in range(count)]


def sides(network: str, folder: Path, threads: int) -> dict[str, Run]:
    """A network of the zoo with its weights drawn, as both sides run it; what exists is kept."""
    from tests.zoo import light

    folder.mkdir(parents=True, exist_ok=True)
    source, library = folder / f"{network}.onnx", folder / f"{network}.so"
    if not library.exists():
        light.save(light.load(ZOO / f"{network}.onnx"), source)
        tvmext.compile(source).save(library)
    compiled = tvmext.load(library, num_threads=threads)
    session = session_of(str(source), threads)
    names = [output.name for output in session.get_outputs()]
    return {
        OURS: lambda arrays: compiled.run(dict(arrays)),
        RIVAL: lambda arrays: dict(zip(names, session.run(names, dict(arrays)))),
    }


def turn(both: Mapping[str, Run], given: Mapping[str, Arrays], first: str) -> tuple[Row, Row]:
    """(seconds, results) of one call of each side."""
    seconds: Row = {}
    results: Row = {}
    for name in sorted(both, key=lambda name: name != first):
        start = time.perf_counter()
        results[name] = both[name](given[name])
        seconds[name] = time.perf_counter() - start
    return seconds, results


def _sentences(args: Any) -> int:
    both = sides(args.network, args.folder, args.threads)
    if args.compile:
        return 0
    rows = []
    for number, length in enumerate([SHORTEST, LONGEST, *lengths(args.count, args.seed)]):
        tokens = np.random.default_rng(number).integers(0, 1000, (1, length))
        arrays = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        seconds, results = turn(both, dict.fromkeys(both, arrays), (OURS, RIVAL)[number % 2])
        for name, array in results[OURS].items():
            agreement(array, results[RIVAL][name])
        if number > 1:  # the first two warm up
            rows.append({"length": length, **seconds})
    _tell(args, rows, "sentences", "length")
    return 0


def _decode(args: Any) -> int:
    both = sides(args.network, args.folder, args.threads)
    if args.compile:
        return 0
    model = onnx.load(ZOO / f"{args.network}.onnx", load_external_data=False)
    rows = []
    for run in range(2):  # the first warms up
        caches: dict[str, dict[str, np.ndarray]] = {name: _empty(model) for name in both}
        past = 0
        for number in range(args.count + 1):
            new = args.prompt if number == 0 else 1
            tokens = np.random.default_rng(number).integers(0, 1000, (1, new))
            mask = np.ones((1, past + new), np.int64)
            given = {
                name: {"input_ids": tokens, "attention_mask": mask, **caches[name]} for name in both
            }
            seconds, results = turn(both, given, (OURS, RIVAL)[number % 2])
            names = list(results[OURS])
            agreement(results[OURS][names[0]], results[RIVAL][names[0]])
            for name in both:
                values = [results[name][output] for output in names[1:]]
                caches[name] = dict(zip(caches[name], values))
            past += new
            if run and number:
                rows.append({"past": past - new, **seconds})
    _tell(args, rows, "decode", "past")
    return 0


def _empty(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Caches of nothing, in the order of the inputs."""
    caches = {}
    for value in model.graph.input:
        dims = [(d.dim_param, d.dim_value) for d in value.type.tensor_type.shape.dim]
        if any(name == "past" for name, _ in dims):
            sizes = {"past": 0, "batch": 1}
            shape = [sizes.get(name, size) for name, size in dims]
            caches[value.name] = np.zeros(shape, np.float32)
    return caches


def _tell(args: Any, rows: Sequence[Row], kind: str, size: str) -> None:
    """Totals and means by ranges of sizes; the rows go to the file."""
    columns = [size, "calls", "tvmext ms", "onnxruntime ms", "ratio of totals", "mean of ratios"]
    ordered = sorted(rows, key=lambda row: row[size])
    quarter = max(1, -(-len(ordered) // 4))
    parts = [ordered[i : i + quarter] for i in range(0, len(ordered), quarter)]
    lines = []
    for part in [*parts, ordered]:
        ours, theirs = (sum(row[side] for row in part) for side in (OURS, RIVAL))
        mean = statistics.geometric_mean([row[RIVAL] / row[OURS] for row in part])
        cells = [f"{1e3 * t / len(part):.3f}" for t in (ours, theirs)]
        span = f"{part[0][size]} to {part[-1][size]}"
        lines.append([span, str(len(part)), *cells, f"{theirs / ours:.2f}", f"{mean:.2f}"])
    print(f"{args.network}, {kind}, threads {args.threads}; mean times of a call\n")
    print(report.markdown(columns, lines, left=(size,)))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"kind": kind, "network": args.network, "rows": list(rows)}))
