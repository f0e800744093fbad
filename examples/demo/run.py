"""Start a real worker on an embedded broker, send it some work, show the results, and stop it clean.

Run by ``make demo``; exits with 0 when everything came back as it should.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def say(title: str, text: object = "") -> None:
    print(f"  {title:<34} {text}", flush=True)


def start_worker(home: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--loglevel", "INFO", "--concurrency", "2"]
    log = open(Path(home) / "worker.log", "wb")  # noqa: SIM115 - the worker keeps it
    return subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log, env={**os.environ, "DEMO_HOME": home})


def progress(result) -> None:
    """Draw a bar while the members of ``result`` come in."""
    total = len(result)
    while True:
        done = result.completed_count()
        print(f"\r  {'group of squares':<34} [{'#' * done}{'.' * (total - done)}] {done}/{total}", end="", flush=True)
        if done == total:
            print()
            return
        time.sleep(0.1)


def work() -> None:
    from tasks import add, divide, square, unsteady

    from celery import group

    assert add.delay(2, 3).get(timeout=20) == 5
    say("add.delay(2, 3).get()", 5)

    answer = unsteady.delay(2).get(timeout=20)
    assert answer == "succeeded at try 3"
    say("a task that retries itself", answer)

    squares = group(square.s(n) for n in range(20)).apply_async()
    progress(squares)
    values = squares.get(timeout=20)
    assert values == [n * n for n in range(20)]
    say("", f"sum of the squares: {sum(values)}")

    result = divide.delay(1, 0)
    try:
        result.get(timeout=20)
    except ZeroDivisionError as error:
        say("divide.delay(1, 0).get() raises", f"{type(error).__name__}: {error}")
        where = [line.strip() for line in result.traceback.splitlines() if "tasks.py" in line][-1]
        say("", f"state {result.state}, and its traceback says where: {where}")
    else:
        raise AssertionError("the division by zero came back without its error")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="celeriac-demo-") as home:
        os.environ["DEMO_HOME"] = home
        sys.path.insert(0, str(HERE))
        print("Celeriac demo: a real worker, a broker in a file, no server.")
        began = time.monotonic()
        worker = start_worker(home)
        try:
            work()
        except BaseException:
            print(f"\nThe worker's log:\n{(Path(home) / 'worker.log').read_text()}", file=sys.stderr)
            raise
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                status = worker.wait(timeout=15)
            except subprocess.TimeoutExpired:
                worker.kill()
                status = worker.wait()
        say("worker stopped", f"exit status {status}")
        print(f"Done in {time.monotonic() - began:.1f} s.")
        return 0 if status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
