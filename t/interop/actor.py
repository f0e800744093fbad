"""One client process: does what standard input says, a JSON line each, and answers on standard output.

Both implementations run this file with their own interpreter, so that both do exactly the same.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    import celery

    answers.write(json.dumps({"value": [celery.__version__, celery.__file__]}) + "\n")
    from scenario_kit import ALL

    for theme in ("tasks", "workflows", "operations"):
        import_module(f"scenarios_{theme}")

    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"value": ALL[order["do"]](*order.get("args", ()), **order.get("kwargs", {}))}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


main()
