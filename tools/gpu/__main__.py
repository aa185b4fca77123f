"""GPUs: what can be done without one, and what a host with one does.

python -m tools.gpu compile --arch sm_80,sm_90a     # the zoo to machine code, on any machine
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import bench, everything, pack, report
from . import compile as compiling


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    known = (
        ("compile", compiling),
        ("pack", pack),
        ("all", everything),
        ("bench", bench),
        ("report", report),
    )
    for name, verb in known:
        part = verbs.add_parser(name, help=(verb.__doc__ or "").splitlines()[0])
        verb.add_arguments(part)
        part.set_defaults(run=verb.main)
    return parser.parse_args(arguments)


def main() -> int:
    """Do what the command line asks for; 0 if it went well."""
    args = parse()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
