"""A worker for the tasks of ``t/facts/canvas/programs.py``; settings come as JSON in ``CANVASWORKER_CONF``."""

import importlib.util
import json
import os
from pathlib import Path

spec = importlib.util.spec_from_file_location(
    "canvas_programs", Path(__file__).parents[2] / "facts" / "canvas" / "programs.py"
)
programs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(programs)


def main():
    app = programs.make_app(**json.loads(os.environ["CANVASWORKER_CONF"]))
    app.worker_main(["worker", "-c", "2", "-l", "WARNING", "-Q", "celery,q,a,b,c,quick", "--without-mingle"])


if __name__ == "__main__":
    main()
