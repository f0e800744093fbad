"""Run fault scenarios by name: ``python -m t.faults F01 --seed 7 --scale 0.1``; see `scenario` for what one is.

Figures are appended to build/faults/figures.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import table  # noqa: F401  # enters all scenarios
from scenario import SCENARIOS, Skipped, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m t.faults", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="ID", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--all", action="store_true", help="run every scenario")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--scale", type=float, default=None, help="1 is the long form; by default the short form")
    parser.add_argument("--unprotected", action="store_true", help="switch the protection off: it must fail then")
    parser.add_argument("--broker", default=None, help="redis or rabbitmq; only scenarios with this broker")
    options = parser.parse_args()
    wanted = list(SCENARIOS) if options.all else options.scenarios
    if options.broker:
        wanted = [name for name in wanted if SCENARIOS[name].broker == options.broker]
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown or not wanted:
        parser.error(f"no such scenario: {', '.join(unknown) or '(none named)'}; there are {', '.join(SCENARIOS)}")
    failed = []
    for name in wanted:
        seed = options.seed if options.seed is not None else random.randrange(1_000_000)
        scale = options.scale if options.scale is not None else SCENARIOS[name].short
        try:
            print(json.dumps(run(name, seed, scale, options.unprotected), default=str), flush=True)
        except Skipped as reason:
            print(f"{name} SKIPPED: {reason}", flush=True)
        except (AssertionError, TimeoutError) as error:
            failed.append(name)
            print(f"{name} FAILED with seed {seed}: {error}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
