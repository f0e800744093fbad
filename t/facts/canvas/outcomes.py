"""Canvases run for real, and how they end: value or error, state, and which task ran how often.

``python outcomes.py record [--only TEXT] [WAY ...]`` runs the table, or the canvases that hold TEXT, on the interpreter's
Celery, in its own process and on workers that it starts, and writes ``outcomes.json``; run with Celery 5.7.0 it made
the file that is here.  ``TEST_REDIS_URL`` and ``TEST_AMQP_URL`` name the servers.  ``python outcomes.py worker`` is such a
worker.  The table is that of ``programs.py`` and ``canvases.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from celery import Celery, Task, group, signals
from celery import current_task as running
from celery.exceptions import Ignore, Reject
from celery.result import ResultSet

HERE = Path(__file__).resolve().parent
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
QUEUES = "celery,q,a,b,c,quick"


def load(name: str) -> Any:
    """Return the program ``name`` of this folder as a module."""
    spec = spec_from_file_location(f"canvas_{name}", HERE / f"{name}.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


programs = load("programs")
pure = load("pure")


# -- what ran

#: Runs noted in this process, unless the environment names a file for them.
LEDGER: list[list[Any]] = []


class Noting(Task):
    """Notes each run with all ids that tell for which canvas it was."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.name.startswith("celery."):
            note(self, args)
        return self.run(*args, **kwargs)


def note(task: Task, args: tuple[Any, ...]) -> None:
    requests = [task.request, *([running.request] if running else ()), *args[:1]]
    ids = [getattr(request, name, None) for request in requests for name in ("id", "root_id")]
    entry = [task.name, [one for one in [*ids, *args[:1]] if isinstance(one, str)]]
    path = os.environ.get("CANVAS_LEDGER")
    if path is None:
        LEDGER.append(entry)
    else:
        with open(path, "a") as file:
            file.write(json.dumps(entry) + "\n")


def stamps_of(request: Any) -> dict[str, Any]:
    found = request.stamps or {}
    return {name: sorted(value) if isinstance(value, (list, tuple, set)) else value for name, value in found.items()}


def add_tasks(app: Celery) -> None:
    """Tasks that look at their request, or do not simply return."""
    names = app.tasks

    @app.task(shared=False, name="told", bind=True)
    def told(self, *args):
        """What reached the message; in eager mode there is none."""
        request = self.request
        delivery = request.delivery_info or {}
        seen = {
            "queue": delivery.get("routing_key"),
            "priority": delivery.get("priority"),
            "header": (request.headers or {}).get("h") or request.get("h"),
            "limits": request.timelimit and list(request.timelimit),
            "expires": bool(request.expires),
        }
        return [*args, {name: value for name, value in seen.items() if value}]

    @app.task(shared=False, name="stamps", bind=True)
    def stamps(self, *args):
        return [*args, stamps_of(self.request)]

    @app.task(shared=False, name="stamps_after_retry", bind=True, max_retries=2)
    def stamps_after_retry(self, *args):
        if not self.request.retries:
            raise self.retry(countdown=0)
        return [*args, stamps_of(self.request)]

    @app.task(shared=False, name="stamps_after_replace", bind=True)
    def stamps_after_replace(self, *args):
        return self.replace(stamps.si(*args))

    @app.task(shared=False, name="stamps_after_chain", bind=True)
    def stamps_after_chain(self, *args):
        return self.replace(stamps.si(*args) | stamps.s())

    @app.task(shared=False, name="retried", bind=True, max_retries=3)
    def retried(self, x):
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return x + self.request.retries

    @app.task(shared=False, name="exhausted", bind=True)
    def exhausted(self, *args):
        raise self.retry(exc=KeyError("again"), max_retries=1, countdown=0)

    @app.task(shared=False, name="rejected")
    def rejected(*args):
        raise Reject("no thanks", requeue=False)

    @app.task(shared=False, name="left")
    def left(*args):
        raise Ignore()

    @app.task(shared=False, name="deeper", bind=True)
    def deeper(self, depth):
        if depth:
            return self.replace(deeper.si(depth - 1))
        return self.request.replaced_task_nesting

    @app.task(shared=False, name="deeper_chain", bind=True)
    def deeper_chain(self, x, depth):
        if depth:
            return self.replace(deeper_chain.si(x, depth - 1) | names["add"].s(1))
        return x

    @app.task(shared=False, name="deeper_chord", bind=True)
    def deeper_chord(self, x, depth):
        if depth:
            return self.replace(group(deeper_chord.si(x, depth - 1), names["add"].si(x, 1)) | names["tsum"].s())
        return x

    @app.task(shared=False, name="replaced_failing", bind=True)
    def replaced_failing(self, *args):
        return self.replace(names["fail"].si())

    @app.task(shared=False, name="replaced_map", bind=True)
    def replaced_map(self, x):
        return self.replace(names["double"].map([x, x]))

    @app.task(shared=False, name="replaced_ending_in_group", bind=True)
    def replaced_ending_in_group(self, x):
        return self.replace(names["add"].s(x, 1) | group(names["add"].s(1), names["add"].s(2)))

    @app.task(shared=False, name="replaced_failing_before_group", bind=True)
    def replaced_failing_before_group(self, x):
        return self.replace(names["fail"].s() | group(names["add"].s(1), names["add"].s(2)))

    @app.task(shared=False, name="replaced_chord_of_groups", bind=True)
    def replaced_chord_of_groups(self, x):
        members = group(names["ident"].s(x), names["ident"].s(2))
        return self.replace(members | group(names["tsum"].s(), names["size"].s()))

    @app.task(shared=False, name="replaced_chunks", bind=True)
    def replaced_chunks(self, x):
        return self.replace(names["add"].chunks([(x, 1), (x, 2)], 1))

    @app.task(shared=False, name="more_members", bind=True)
    def more_members(self, x):
        self.add_to_chord(names["add"].si(x, 100))
        return x

    @app.task(shared=False, name="errback_new")
    def errback_new(request, exc, traceback):
        return "new"

    @app.task(shared=False, name="errback_by_id")
    def errback_by_id(task_id):
        return "by id"

    @app.task(shared=False, name="size")
    def size(xs):
        return len(xs)


#: Beside the canvases of ``programs.py``.
MORE = load("canvases").MORE


@contextmanager
def header_errbacks(app: Celery) -> Any:
    app.conf.task_allow_error_cb_on_chord_header = True
    try:
        yield
    finally:
        app.conf.task_allow_error_cb_on_chord_header = False


def header_errored(sig: Any, *errbacks: Any) -> Any:
    """Link errbacks while the setting says that members of a header get them, too."""
    with header_errbacks(sig.app):
        return programs.errored(sig, *errbacks)


def table() -> list[str]:
    return list(dict.fromkeys([*programs.lines(programs.CANVASES), *programs.lines(MORE)]))


def make_app(**conf: Any) -> Celery:
    app = programs.make_app(task_cls=Noting, **conf)
    add_tasks(app)
    app.task(shared=False, name="step")(pure.digest)
    return app


def built(app: Celery, program: str) -> Any:
    names = programs.namespace(app)
    names.update({word.__name__: word for word in (*programs.WORDS, header_errored)})
    return eval(program, {**names, "LONG_AGO": LONG_AGO})  # the tables


# -- how it ended


def states_of(result: Any) -> Any:
    return [states_of(member) for member in result.results] if isinstance(result, ResultSet) else result.state


def ending(result: Any, timeout: float) -> dict[str, Any]:
    """What ``get`` gives."""
    try:
        return {"value": programs.Mask()(result.get(timeout=timeout, disable_sync_subtasks=False))}
    except Exception as error:
        return {"error": type(error).__name__}


def eager(programs: Iterable[str] | None = None) -> dict[str, Any]:
    """Run the table, or some of it, in this process."""
    found = {}
    app = make_app()
    for program in programs or table():
        LEDGER.clear()
        try:
            result = built(app, program).apply()
            found[program] = {**ending(result, 0), "state": states_of(result)}
        except Exception as error:
            found[program] = {"error": type(error).__name__}
        found[program]["ran"] = dict(sorted(Counter(name for name, _ in LEDGER).items()))
    return found


# -- on a worker

#: Way → broker, store, and settings beside them.
WAYS = {
    "redis/redis": ("{redis}", "{redis}", {}),
    "rabbitmq/rpc": ("{amqp}", "rpc://", {}),
    "rabbitmq/database": ("{amqp}", "db+sqlite:///{directory}/results.db", {}),
    "redis/filesystem": ("{redis}", "file://{directory}/results", {}),
}


@contextmanager
def virtual_host(url: str) -> Any:
    """Give a virtual host of its own, so that queues have the names that the table says."""
    name = f"canvas-{uuid.uuid4().hex[:8]}"
    user = url.split("//")[1].split(":")[0]
    for order in (["add_vhost", name], ["set_permissions", "-p", name, user, ".*", ".*", ".*"]):
        subprocess.run(["rabbitmqctl", "-q", *order], check=True, stdout=subprocess.DEVNULL, timeout=60)
    try:
        yield f"{url.rstrip('/')}/{name}"
    finally:
        subprocess.run(["rabbitmqctl", "-q", "delete_vhost", name], stdout=subprocess.DEVNULL, timeout=60)


class Run:
    """The table on a worker: all canvases at once."""

    def __init__(self, way: str, directory: Path, redis: str, amqp: str) -> None:
        self.directory = directory
        broker, backend, extra = WAYS[way]
        (directory / "results").mkdir()
        prefix = f"canvas-{uuid.uuid4().hex[:8]}-"
        places = {"redis": redis, "amqp": amqp, "directory": directory}
        self.conf = {
            "broker_url": broker.format(**places),
            "result_backend": backend.format(**places),
            "result_chord_retry_interval": 1,
            "result_expires": 300,
            "broker_connection_retry_on_startup": True,
            **extra,
        }
        if "{redis}" in broker:
            self.conf["broker_transport_options"] = {"global_keyprefix": prefix}
        if "{redis}" in backend:
            self.conf["result_backend_transport_options"] = {"global_keyprefix": prefix}
        self.app = make_app(**self.conf)
        self.ledger = directory / "ledger"
        self.ledger.touch()
        self.results: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        self.program_of: dict[str, str] = {}

    @contextmanager
    def worker(self) -> Any:
        env = {**os.environ, "CANVAS_CONF": json.dumps(self.conf), "CANVAS_LEDGER": str(self.ledger)}
        command = [sys.executable, str(HERE / "outcomes.py"), "worker"]
        with open(self.directory / "worker.log", "w") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def send(self, table: Iterable[str]) -> None:
        def publishing(headers=None, **_):
            self.program_of[headers["id"]] = program

        signals.before_task_publish.connect(publishing, weak=False)
        try:
            for program in table:
                try:
                    result = self.results[program] = built(self.app, program).apply_async()
                    for one in ids_in(result and result.as_tuple()):
                        self.program_of[one] = program
                except Exception as error:
                    self.refused[program] = type(error).__name__
        finally:
            signals.before_task_publish.disconnect(publishing)

    def endings(self, seconds: float, last: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
        """Wait for all results, ``seconds`` in all; for those that never end, named in ``last``, only for a moment."""
        deadline = time.monotonic() + seconds
        found: dict[str, dict[str, Any]] = {}
        for program, result in self.results.items():
            if program not in last:
                found[program] = ending(result, max(0.1, deadline - time.monotonic()))
        for program in last:
            if program in self.results:
                found[program] = ending(self.results[program], 0.1)
        found.update({program: {"refused": error} for program, error in self.refused.items()})
        return found

    def states(self) -> dict[str, Any]:
        """The states as they are now."""
        return {program: states_of(result) for program, result in self.results.items()}

    def ran(self) -> dict[str, dict[str, int]]:
        """Which tasks ran so far, for each program."""
        found: dict[str, Counter[str]] = {program: Counter() for program in [*self.results, *self.refused]}
        for line in self.ledger.read_text().splitlines():
            name, ids = json.loads(line)
            owners = {self.program_of[one] for one in ids if one in self.program_of}
            for program in owners or {f"nobody: {line}"}:
                found.setdefault(program, Counter())[name] += 1
        return {program: dict(sorted(count.items())) for program, count in found.items()}

    def settled_runs(self, quiet_seconds: float, seconds: float) -> dict[str, dict[str, int]]:
        """What ran when nothing more has run for ``quiet_seconds``."""
        deadline = time.monotonic() + seconds
        size, since = -1, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() < since + quiet_seconds:
            if self.ledger.stat().st_size != size:
                size, since = self.ledger.stat().st_size, time.monotonic()
            time.sleep(0.05)
        return self.ran()


def ids_in(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from ids_in(item)


def record(way: str, programs: list[str]) -> dict[str, Any]:
    print(f"{way}: {len(programs)} canvases", file=sys.stderr)
    if way == "eager":
        return eager(programs)
    redis = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + "/7"
    amqp = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        if "rabbitmq" in way:
            amqp = stack.enter_context(virtual_host(amqp))
        run = Run(way, directory, redis, amqp)
        with run.worker():
            run.send(programs)
            found = run.endings(float(os.environ.get("CANVAS_SECONDS", "60")))
            ran = run.settled_runs(4, 30)
            for program in [name for name, outcome in found.items() if outcome.get("error") == "TimeoutError"]:
                found[program] = ending(run.results[program], 1)  # it may have had too little time
            for program, state in run.states().items():
                found[program]["state"] = state
        for program in found:
            found[program]["ran"] = ran.pop(program)
        if ran:
            print("Of no program:", *ran, sep="\n  ", file=sys.stderr)
    return found


def main(words: list[str]) -> None:
    if words == ["worker"]:
        app = make_app(**json.loads(os.environ["CANVAS_CONF"]))
        options = ["--without-mingle", "--without-gossip", "--without-heartbeat"]
        app.worker_main(["worker", "-c", "2", "-l", "WARNING", "-Q", QUEUES, *options])
        return
    if words[:1] != ["record"]:
        sys.exit(__doc__)
    word = words[2] if words[1:2] == ["--only"] else ""
    chosen = [program for program in table() if word in program]
    target = HERE / "outcomes.json"
    known = json.loads(target.read_text()) if target.exists() else {}
    for way in words[3 if word else 1 :] or ["eager", *WAYS]:
        known[way] = {
            **{name: known[way][name] for name in table() if name in known.get(way, ())},
            **record(way, chosen),
        }
    parts = []
    for way, outcomes in sorted(known.items()):
        rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(outcomes.items()))
        parts.append(f"{json.dumps(way)}: {{\n{rows}\n}}")
    target.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
