"""One client-side measurement in a process of its own: ``client.py VERB N``; prints one JSON object."""

import json
import os
import statistics
import sys
import time


def main(verb: str, n: int) -> dict:
    import benchapp

    if verb == "roundtrips":
        benchapp.roundtrips(30)
        times = sorted(benchapp.roundtrips(n))
        return {"p50_ms": statistics.median(times) * 1e3, "p99_ms": times[int(n * 0.99)] * 1e3}
    action = getattr(benchapp, verb)
    if verb == "enqueue":
        action(50)
    cpu, wall = time.process_time(), time.perf_counter()
    action(n)
    return {"cpu_us": (time.process_time() - cpu) / n * 1e6, "seconds": time.perf_counter() - wall}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))), flush=True)
    os._exit(0)
