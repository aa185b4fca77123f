"""Measures in a process of its own: ``python -m tools.bench.worker SETTINGS``.

Requests come in on stdin as JSON lines: {"case": name}, with "oracle" for what oracle.py finds out
about it, {"dynamic": ...} (dynamic/row.py), or {"model": ...} (models.py). A row goes out for each.
What crashes here costs the parent (workers.py) one row. The first line out describes the machine
and what a call alone costs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from tvmext.measure.agreement import agreement
from tvmext.measure.figures import figures
from tvmext.measure.host import interruptions
from tvmext.measure.machine import Machine
from tvmext.measure.samples import Round
from tvmext.measure.timing import Call, measure

from . import contenders
from .cases import Case, named
from .cases.case import Graph, node, random
from .contenders import Contender
from .dynamic.row import dynamic_row
from .models import model_row
from .oracle import oracle_row

OURS, ONNX_RUNTIME, TORCH = "tvmext", "onnxruntime", "torch"
Row = dict[str, Any]


class Worker:
    """Measures on a machine that has been calibrated once.

    `against` names the other sides; `seconds` is the most that one comparison may take. With
    `processor_time` times are those of the processor, all threads together.
    """

    def __init__(
        self, threads: int, against: list[str], seconds: float, processor_time: bool = False
    ) -> None:
        self.threads = threads
        self.against = against
        self.seconds = seconds
        self.processor_time = processor_time
        self.machine = Machine(threads)
        self.overhead = self._overhead()

    def facts(self) -> Row:
        """The machine, and the microseconds that each side needs for one element."""
        overhead = {name: round(seconds * 1e6, 3) for name, seconds in self.overhead.items()}
        clock = "processor" if self.processor_time else "wall"
        return {**self.machine.facts(), "clock": clock, "overhead_us": overhead}

    def row(self, request: Row) -> Row:
        """The figures that are asked for."""
        if "dynamic" in request:
            return dynamic_row(request, self.against, self.threads, self.rounds)
        if "case" in request:
            case = named(request["case"])
            if request.get("oracle"):
                return oracle_row(case, self.threads, self.rounds)
            return self.case_row(case)
        return model_row(request, self.threads, self.machine, self.rounds)

    def case_row(self, case: Case) -> Row:
        """The figures of one case; "error" says why ours are missing."""
        graph = case.graph()
        rival, form = contenders.fastest_form(case, graph, self.threads, self._least)
        sides: dict[str, Contender] = {ONNX_RUNTIME: rival}
        row: Row = {"case": case.name, "family": case.family, "threads": self.threads, "form": form}
        try:
            sides[OURS] = contenders.tvmext(graph.model(), graph.inputs)
            row["max_abs"] = agreement(sides[OURS].result, rival.result)
        except Exception as error:  # every kind of failure is a row of the table
            sides.pop(OURS, None)
            row["error"] = f"{type(error).__name__}: {error}".partition("\n")[0]
        calls: dict[str, Call] = {side: contender.call for side, contender in sides.items()}
        if TORCH in self.against and case.torch:
            calls[TORCH] = contenders.torch(case, graph, self.threads)
        rounds = self.rounds(calls)
        shares = {side: c.interior() for side, c in sides.items()} if case.interior else {}
        roof = self._roof(case, graph, rival)
        return {**row, **roof, **figures(rounds, OURS, self.overhead, shares)}

    def rounds(self, calls: Mapping[str, Call], part: float = 1.0) -> list[Round]:
        """Let `calls` take turns, for at most `part` of the time of a comparison.

        Processor time stands still while something else runs, so interruptions do not count there.
        """
        seconds = self.seconds * part
        if self.processor_time:
            return measure(calls, self.machine, lambda: 0, seconds=seconds, clock=time.process_time)
        return measure(calls, self.machine, interruptions(self.threads), seconds=seconds)

    def _least(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """The least seconds of each call, quickly."""
        rounds = self.rounds(calls, 0.25)
        return {name: min(turn[name].seconds for turn in rounds) for name in calls}

    def _overhead(self) -> dict[str, float]:
        """Seconds of a call that computes one element."""
        graph = Graph([node("Relu", "x", "y")], {"x": random(1)}, "y", {})
        case = Case("call", lambda: graph, torch=lambda torch, t: lambda: torch.relu(t["x"]))
        calls: dict[str, Call] = {
            ONNX_RUNTIME: contenders.onnx_runtime(graph.model(), graph.inputs, self.threads).call,
            OURS: contenders.tvmext(graph.model(), graph.inputs).call,
        }
        if TORCH in self.against:
            calls[TORCH] = contenders.torch(case, graph, self.threads)
        return self._least(calls)

    def _roof(self, case: Case, graph: Graph, rival: Contender) -> Row:
        arrays = [*graph.inputs.values(), *graph.weights.values(), rival.result]
        moved = case.moved or float(sum(array.nbytes for array in arrays))
        roof = self.machine.roofline(case.flops, moved)
        return {"flops": case.flops, "bytes": moved, "roofline_us": roof * 1e6}


def main() -> None:
    """Serve until stdin is closed. Whatever libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(**json.loads(sys.argv[1]))
    print(json.dumps(worker.facts()), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.row(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
