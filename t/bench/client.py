"""One client-side measurement in a process of its own: ``client.py VERB N``; prints one JSON object."""

import json
import os
import resource
import statistics
import sys
import time
from functools import partial

#: Verb → how much of it is done before the clock starts.
WARM_UPS = {"enqueue": 50, "canvas_group": 3, "canvas_chord": 3, "canvas_chain": 3, "build_chain": 3}


def main(verb: str, n: int) -> dict:
    import benchapp

    if verb == "roundtrips":
        benchapp.roundtrips(30)
        times = sorted(benchapp.roundtrips(n))
        return {"p50_ms": statistics.median(times) * 1e3, "p99_ms": times[int(n * 0.99)] * 1e3}
    action = getattr(benchapp, verb)
    if verb in WARM_UPS:  # what is loaded and connected at first use
        action(WARM_UPS[verb])
    prepare = getattr(benchapp, f"prepare_{verb}", None)
    if prepare is not None:
        n, action = 1, partial(action, prepare(n))
    memory, cpu, wall = peak_megabytes(), time.process_time(), time.perf_counter()
    action(n) if prepare is None else action()
    return {
        "cpu_us": (time.process_time() - cpu) / n * 1e6,
        "seconds": time.perf_counter() - wall,
        "megabytes": peak_megabytes() - memory,
    }


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))), flush=True)
    os._exit(0)
