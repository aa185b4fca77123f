"""One compile for any size against tuning for each: MetaSchedule on matrix products, time for time.

A product of two results is compiled once, for any size. MetaSchedule, TVM's tuner, gets every shape
for itself: round after round of trials, by its evolutionary search and its learned cost model with
their defaults, until its best kernel is as fast as ours is there, or its time is up. Trials are
built and measured in this process and on one thread, so that workers cost it nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import s_tir, te
from tvm.s_tir import meta_schedule as ms

from tvmext.arch import to_target
from tvmext.measure.agreement import agreement
from tvmext.measure.samples import geometric_mean

from . import report
from .dynamic import cases, kernels
from .dynamic.cases import Gemm

LEAST, MOST = 1 << 18, 1 << 26
"""Multiplications of a case: from some 3 us of one core to some ms, so that trials are short."""

LEAST_SIZE = 16
"""No size of a case is less, so that none is a plain sum, which tuners are not made for."""

DRAWN = 160
"""Products that are drawn from MikPoly's ranges; the cases are some of them."""

SEARCH = "evolutionary"
"""MetaSchedule's way to find candidates."""

REPEAT_MS = 100
"""How long a trial runs, as MetaSchedule has it."""

TURN_SECONDS = 1.0
"""How long both kernels take turns in the end."""

Row = dict[str, Any]
Call = Callable[[], object]


def add(commands: Any) -> None:
    """The subcommand."""
    parser = commands.add_parser("tuning", help="kernels for any size against MetaSchedule")
    parser.add_argument("--gemms", type=int, default=3, metavar="N", help="products to tune")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="at most, to tune one product (default: 600)"
    )
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="trials of a round")
    parser.add_argument("--json", type=Path, default=Path("build/bench-tuning.json"))
    parser.set_defaults(run=run)


def run(args: Any) -> int:
    """Tune what the file does not have yet, add it there, and print the table of all."""
    rows: list[Row] = json.loads(args.json.read_text())["rows"] if args.json.exists() else []
    done = {row["case"] for row in rows}
    import_module("tvm.s_tir.tensor_intrin")  # half a minute, which is no time of tuning
    with tempfile.TemporaryDirectory() as folder:
        compiled, library = _compiled(Path(folder))
        for case in drawn(args.gemms, args.seed):
            if args.only in case.name and case.name not in done:
                row = _row(case, library, args)
                rows.append({**row, "compile_seconds": compiled})
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps({"rows": rows}))
    print(table(rows))
    return 0


def drawn(count: int, seed: int) -> list[Gemm]:
    """`count` products without a weight, evenly spread over those of MikPoly's that fit."""

    def fits(case: Gemm) -> bool:
        sizes = (case.m, case.n, case.k)
        return not case.weight and min(sizes) >= LEAST_SIZE and LEAST <= case.flops / 2 <= MOST

    return cases.spread(list(filter(fits, cases.gemms(DRAWN, seed))), count)


def table(rows: Sequence[Row]) -> str:
    """A line for each product and each round of trials that was better, and the means."""
    columns = ["product", "trials", "tuning s", "tuned us", "ours us", "tuned / ours"]
    columns += ["tuning / compile"]
    lines = []
    for row in rows:
        for step in row["rounds"]:
            ratio = step["us"] / row["evaluated_us"]
            cells = [str(step["trials"]), f"{step['seconds']:.0f}", f"{step['us']:.4g}"]
            cells += [f"{row['evaluated_us']:.4g}", f"{ratio:.2f}"]
            lines.append([row["case"], *cells, f"{step['seconds'] / row['compile_seconds']:.0f}"])
        cells = ["in turns", "", f"{row['tuned_us']:.4g}", f"{row['ours_us']:.4g}"]
        lines.append([row["case"], *cells, f"{row['tuned_us'] / row['ours_us']:.2f}", ""])
    text = report.markdown(columns, lines, left=("product",))
    if not rows:
        return text
    ratios = geometric_mean([row["tuned_us"] / row["ours_us"] for row in rows])
    times = geometric_mean([row["rounds"][-1]["seconds"] / row["compile_seconds"] for row in rows])
    matched = sum(row["matched"] for row in rows)
    told = (
        f"compiled once for any size in {rows[0]['compile_seconds']:.1f} s",
        f"tuned / ours {ratios:.2f}",
        f"time to tune / to compile {times:.0f}",
        f"as fast as ours within the time: {matched} of {len(rows)}",
    )
    return f"{text}\n\n{'; '.join(told)} (geometric means)"


def _compiled(folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds to schedule and compile the kernel for any size, and its library."""
    for warm in (True, False):  # the first one also pays for imports
        start = time.perf_counter()
        ready = kernels.dynamic(Gemm(1, 1, 1, False))
        library = kernels.libraries([ready], folder / str(warm))
        seconds = time.perf_counter() - start
    return seconds, library


def _row(case: Gemm, library: dict[str, Any], args: Any) -> Row:
    arrays = kernels.inputs(case)
    given = [tvm.runtime.tensor(array) for array in arrays.values()]
    out = [tvm.runtime.empty(kernels.out_shape(case), "float32") for _ in range(2)]
    ours = kernels.dynamic(case).call(library, list(arrays.values()), kernels.sizes(case), out[0])
    goal = _evaluated(ours)
    rounds: list[Row] = []
    best: tuple[float, Any] = (float("inf"), None)
    for step, best in tuned(case, [*given, out[1]], args):
        rounds.append(step)
        ratio = step["us"] / (1e6 * goal)
        told = f"{step['trials']} trials, {step['seconds']:.0f} s"
        print(f"{case.name}: {told}, tuned / ours {ratio:.2f}", file=sys.stderr)
        if best[0] <= goal or step["seconds"] >= args.seconds:
            break
    theirs = _bound(best[1], [*given, out[1]])
    ours_us, tuned_us = (1e6 * s for s in _in_turns([ours, theirs]))
    agreement(out[0].numpy(), out[1].numpy())
    return {
        "case": case.name,
        "evaluated_us": 1e6 * goal,
        "ours_us": ours_us,
        "tuned_us": tuned_us,
        "matched": best[0] <= goal,
        "rounds": rounds,
    }


def tuned(case: Gemm, arguments: list[Any], args: Any) -> Iterator[tuple[Row, tuple[float, Any]]]:
    """After each round: trials and seconds so far, and the best kernel with its seconds."""
    start = time.perf_counter()
    target = tvm.target.Target({**to_target(kernels.arch()), "num-cores": 1})
    mod = tvm.IRModule({"main": _product(case)})
    context = ms.TuneContext(
        mod,
        target=target,
        space_generator="post-order-apply",
        search_strategy=SEARCH,
        num_threads=1,
        rand_state=args.seed + 1,
    )
    database = ms.database.MemoryDatabase()
    model = ms.cost_model.XGBModel(num_tuning_cores=1)
    context.pre_tuning(1 << 20, args.batch, None, database, model)
    workload = database.commit_workload(mod)
    best: tuple[float, Any] = (float("inf"), None)
    trials = 0
    while candidates := context.generate_measure_candidates():
        results = []
        for candidate in candidates:
            seconds, kernel = _tried(candidate, target, arguments)
            result = ms.runner.RunnerResult([seconds] if kernel else None, None if kernel else "")
            results.append(result)
            if kernel:
                record = ms.database.TuningRecord(
                    candidate.sch.trace, workload, [seconds], target, candidate.args_info
                )
                database.commit_tuning_record(record)
            best = min(best, (seconds, kernel), key=lambda one: one[0])
        model.update(context, list(candidates), results)
        context.notify_runner_results(candidates, results)
        trials += len(candidates)
        spent = time.perf_counter() - start
        yield {"trials": trials, "seconds": spent, "us": 1e6 * best[0]}, best


def _tried(candidate: Any, target: Any, arguments: list[Any]) -> tuple[float, Any]:
    """The seconds of a candidate and its kernel, or infinitely many where it cannot be built."""
    try:
        plain = s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)
        kernel = tvm.compile(plain(candidate.sch.mod), target)["main"]
    except tvm.error.TVMError:
        return float("inf"), None
    return _evaluated(_bound(kernel, arguments)), kernel


def _product(case: Gemm) -> tvm.tirx.PrimFunc:
    x, w = (te.placeholder(s, "float32") for s in ((case.m, case.k), (case.k, case.n)))
    k = te.reduce_axis((0, case.k), "k")
    out = te.compute((case.m, case.n), lambda i, j: te.sum(x[i, k] * w[k, j], k), "out")
    return te.create_prim_func([x, w, out]).with_attr("global_symbol", "main")


def _bound(kernel: Any, arguments: list[Any]) -> Call:
    return lambda: kernel(*arguments)


def _evaluated(call: Call) -> float:
    """Seconds of a call, the mean over `REPEAT_MS`, as a tuner measures."""
    call()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < REPEAT_MS / 1000:
        call()
        count += 1
    return spent / count


def _in_turns(calls: Sequence[Call]) -> list[float]:
    """The least seconds of each."""
    least = [float("inf")] * len(calls)
    times = np.array(least)
    end = time.perf_counter() + TURN_SECONDS * len(calls)
    while time.perf_counter() < end:
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            times[number] = time.perf_counter() - start
        least = list(np.minimum(least, times))
    return [float(one) for one in least]
