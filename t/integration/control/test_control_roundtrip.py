"""Every command of remote control, asked over a real broker and answered by a real worker in the recorded shape."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from celery import Celery
from celery.app.control import flatten_reply
from celery.exceptions import DuplicateNodenameWarning

HERE = Path(__file__).parent
FACTS = json.loads((HERE.parents[1] / "facts" / "control.json").read_text())["commands"]
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
BROKERS = [
    pytest.param(f"{REDIS}/9", id="redis", marks=pytest.mark.redis),
    pytest.param(f"{AMQP}//", id="rabbitmq", marks=pytest.mark.rabbitmq),
]
PATIENCE = 30


def wait_until(claim, tell=lambda: ""):
    deadline = time.monotonic() + PATIENCE
    while not (value := claim()):
        assert time.monotonic() < deadline, tell()
        time.sleep(0.05)
    return value


class Cluster:
    """Workers of one app, and the app as a client sees it."""

    def __init__(self, broker, directory):
        name = f"ctl{uuid.uuid4().hex[:8]}"
        self.directory = directory
        self.conf = {
            "broker_url": broker,
            "result_backend": f"file://{directory}",
            "task_default_queue": name,
            "control_exchange": name,
            "event_exchange": f"{name}ev",
            "worker_pool_restarts": True,
            # what must not be seen in any answer
            "redis_password": "c4n4ry",
            "my_api_token": "c4n4ry",
            "aws_secret": "c4n4ry",
            "result_backend_transport_options": {"sentinel_kwargs": {"password": "c4n4ry"}},
            "my_urls": ["redis://u:c4n4ry@a/0;redis://u:c4n4ry@b/0"],
        }
        self.app = Celery("controlled", set_as_current=False)
        self.app.conf.update(self.conf)
        self.control = self.app.control
        self.workers = {}

    def start(self, node, *options):
        log = self.directory / f"{node}.log"
        words = ["-A", "controlapp", "worker", "-n", node, "-l", "INFO", "--without-mingle", *(options or ("-c", "2"))]
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *words],
                cwd=HERE,
                env={**os.environ, "CONTROL_CONF": json.dumps(self.conf), "C_FORCE_ROOT": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.workers[node] = process
        wait_until(lambda: " ready." in log.read_text() or process.poll() is not None, log.read_text)
        assert process.poll() is None, log.read_text()

    def send(self, name, *args, **options):
        return self.app.send_task(name, args, **options).id

    def ask(self, command, node=None, **arguments):
        """Return the reply of the one worker that is asked."""
        destination = [node or next(iter(self.workers))]
        replies = self.control.broadcast(command, arguments, destination=destination, reply=True, timeout=10, limit=1)
        ((reply,),) = (answer.values() for answer in replies)
        return reply

    def close(self):
        for process in self.workers.values():
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
        for process in self.workers.values():
            process.wait(PATIENCE)
        self.app.close()


@pytest.fixture(scope="module", params=BROKERS)
def cluster(request, tmp_path_factory):
    cluster = Cluster(request.param, tmp_path_factory.mktemp("control"))
    try:
        cluster.start("w1@here")
        yield cluster
    finally:
        cluster.close()


# -- shapes

KINDS = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
    "JSON value": object,
}


def differences(shape, value, place="reply"):
    """Yield where ``value`` is not of the recorded ``shape``; ``<name>`` is any key, a list of one is of any length."""
    if isinstance(shape, str):
        kinds = tuple(KINDS[kind.strip()] for kind in shape.split("|"))
        if not isinstance(value, tuple(flat(kinds))) or (isinstance(value, bool) and shape in ("integer", "number")):
            yield f"{place}: {value!r} is not {shape}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{place}: {value!r} is no list"
        elif len(shape) > 1:
            for number, (inner, item) in enumerate(zip(shape, value, strict=True)):
                yield from differences(inner, item, f"{place}[{number}]")
        else:
            for number, item in enumerate(value):
                yield from differences(shape[0], item, f"{place}[{number}]")
    elif not isinstance(value, dict):
        yield f"{place}: {value!r} is no mapping"
    else:
        any_key = next((key for key in shape if key.startswith("<")), None)
        for key, inner in shape.items():
            if key == any_key:
                continue
            if key not in value:
                yield f"{place}.{key} is missing"
            else:
                yield from differences(inner, value[key], f"{place}.{key}")
        for key in value.keys() - shape.keys():
            if any_key is None:
                yield f"{place}.{key} is not recorded"
            else:
                yield from differences(shape[any_key], value[key], f"{place}.{key}")


def flat(kinds):
    for kind in kinds:
        yield from kind if isinstance(kind, tuple) else (kind,)


def recorded(command, case="default"):
    return next(reply["shape"] for reply in FACTS[command]["replies"] if reply["case"] == case)


def recorded_request(shape):
    """The shape of a request in an answer of ``query_task``, whether or not it has begun."""
    return {**shape[1], "time_start": "number | null", "worker_pid": "integer | null"}


#: command, recorded case, arguments; those that need tasks at work, or end the worker, have tests of their own.
CASES = [
    ("active_queues", "default", {}),
    ("add_consumer", "default", {"queue": "q2", "exchange": "ex2", "exchange_type": "topic", "routing_key": "rk.#"}),
    ("add_consumer", "add_consumer again", {"queue": "q2"}),
    ("active_queues", "active_queues two", {}),
    ("cancel_consumer", "default", {"queue": "q2"}),
    ("cancel_consumer", "cancel_consumer unknown", {"queue": "nope"}),
    ("autoscale", "worker without --autoscale", {"max": 4, "min": 1}),
    ("clock", "default", {}),
    ("election", "default", {"id": "e1", "topic": "t1", "action": {}}),
    ("heartbeat", "default", {}),
    ("conf", "default", {}),
    ("conf", "conf with_defaults", {"with_defaults": True}),
    ("enable_events", "default", {}),
    ("disable_events", "default", {}),
    ("hello", "default", {"from_node": "other@host", "revoked": {}}),
    ("memsample", "default", {}),
    ("memdump", "default", {"samples": 5}),
    ("ping", "default", {}),
    ("pool_grow", "default", {"n": 1}),
    ("pool_shrink", "default", {"n": 1}),
    ("pool_restart", "default", {}),
    ("pool_restart", "pool_restart modules", {"modules": ["controlapp"], "reload": True}),
    ("rate_limit", "default", {"task_name": "add", "rate_limit": "5/m"}),
    ("rate_limit", "rate_limit zero", {"task_name": "add", "rate_limit": 0}),
    ("rate_limit", "rate_limit invalid", {"task_name": "add", "rate_limit": "bad"}),
    ("rate_limit", "rate_limit unknown task", {"task_name": "nope", "rate_limit": "5/m"}),
    ("registered", "default", {}),
    ("registered", "registered with items", {"taskinfoitems": ["exchange", "rate_limit", "max_retries"]}),
    ("report", "default", {}),
    ("revoke", "default", {"task_id": "some-id"}),
    ("revoke", "revoke list", {"task_id": ["a", "b"], "terminate": False}),
    ("revoke", "revoke terminate unknown", {"task_id": "no-such-id", "terminate": True}),
    ("revoked", "revoked after", {}),
    ("revoke_by_stamped_headers", "revoke_by_stamped_headers idle", {"headers": {"stampkey": "v3"}}),
    ("stats", "default", {}),
    ("terminate", "default", {"task_id": "no-such-id", "signal": "KILL"}),
    ("time_limit", "default", {"task_name": "add", "soft": 5, "hard": 10}),
    ("time_limit", "time_limit unknown task", {"task_name": "nope", "soft": 5, "hard": 10}),
]
#: Commands with tests of their own below.
ELSEWHERE = {"active", "objgraph", "query_task", "reserved", "scheduled", "shutdown"}


@pytest.mark.parametrize(("command", "case", "arguments"), CASES, ids=lambda value: str(value)[:30])
def test_replies_have_the_recorded_shape(cluster, command, case, arguments):
    reply = cluster.ask(command, **arguments)
    shape = recorded(command, case)
    if command == "stats":  # recorded on RabbitMQ, where there are always a user and a way to log in
        shape = {**shape, "broker": {**shape["broker"], "userid": "string | null", "login_method": "string | null"}}

    assert not list(differences(shape, reply))
    assert "c4n4ry" not in str(reply)


def test_no_command_is_left_out():
    assert {command for command, *_ in CASES} | ELSEWHERE == set(FACTS)


def test_a_graph_of_objects_is_drawn_or_the_missing_package_named(cluster):
    reply = cluster.ask("objgraph", num=1, max_depth=1, type="Request")
    assert not list(differences(recorded("objgraph"), reply)) or "objgraph" in reply["error"]


def test_tasks_with_a_stamp_are_revoked_and_terminated(cluster, tmp_path):
    mark, stamp = tmp_path / "stamped", uuid.uuid4().hex  # a revoke is on record for workers to come
    sleeper = cluster.app.signature("sleeper", (600, str(mark)))
    sleeper.stamp(stampkey=stamp)
    task_id = sleeper.apply_async().id
    wait_until(mark.exists)
    reply = cluster.ask("revoke_by_stamped_headers", headers={"stampkey": [stamp]}, terminate=True, signal="KILL")

    assert not list(differences(recorded("revoke_by_stamped_headers"), reply))
    wait_until(lambda: not cluster.ask("active"))
    assert cluster.app.AsyncResult(task_id).state == "REVOKED"


@pytest.mark.parametrize("name", ["SIGTERM", "KILL", "SIGUSR1", "SIGUSR2"])
def test_a_running_task_is_terminated_by_the_signal_and_its_neighbour_goes_on(cluster, tmp_path, name):
    marks = [tmp_path / "0", tmp_path / "1"]
    neighbour = cluster.app.send_task("sleeper", (1.5, str(marks[0])))
    doomed = cluster.app.send_task("sleeper", (600, str(marks[1])))
    wait_until(lambda: all(mark.exists() for mark in marks))
    reply = cluster.ask("revoke", task_id=doomed.id, terminate=True, signal=name)

    assert reply == {"ok": f"terminate: {doomed.id}"}
    wait_until(lambda: doomed.state == "REVOKED")
    number = getattr(signal, name if name.startswith("SIG") else f"SIG{name}")
    log = (cluster.directory / "w1@here.log").read_text()
    assert f"Terminating {doomed.id} (Signals.{number.name})" in log or f"Terminating {doomed.id} ({number:d})" in log
    wait_until(lambda: neighbour.state == "SUCCESS")
    assert cluster.app.AsyncResult(doomed.id).state == "REVOKED"  # still: nothing came after it
    assert cluster.ask("ping") == {"ok": "pong"}


def test_a_signal_that_does_not_exist_is_refused(cluster, tmp_path):
    mark = tmp_path / "begun"
    task_id = cluster.send("sleeper", 1, str(mark))
    wait_until(mark.exists)

    assert "error" in cluster.ask("terminate", task_id=task_id, signal="SIGNONE")
    wait_until(lambda: cluster.app.AsyncResult(task_id).state == "SUCCESS")


def test_tasks_at_work_waiting_and_due_later_are_shown(cluster, tmp_path):
    marks = [tmp_path / "0", tmp_path / "1"]
    running = [cluster.send("sleeper", 600, str(mark)) for mark in marks]
    wait_until(lambda: all(mark.exists() for mark in marks))
    waiting = cluster.send("sleeper", 600)
    # what expires at the broker is held by the worker, and does not wait in queues of RabbitMQ
    later = cluster.send("add", 1, countdown=500, expiration=3600)
    inspect = cluster.control.inspect(timeout=10, limit=1)
    wait_until(lambda: cluster.ask("reserved") and cluster.ask("scheduled"))
    try:
        for command, ids in (("active", running), ("reserved", [waiting]), ("scheduled", [later])):
            (reply,) = getattr(inspect, command)().values()
            shape = recorded(command)
            if command != "scheduled":
                shape = [{**shape[0], "args": "object"}]
                reply = [{**shown, "args": {}} for shown in reply]
            assert not list(differences(shape, reply))
            assert {shown.get("id") or shown["request"]["id"] for shown in reply} == set(ids)
        (found,) = inspect.query_task(running[0], waiting, "no-such-id").values()
        shown = {task_id: [state, {**info, "args": {}}] for task_id, (state, info) in found.items()}
        (shape,) = recorded("query_task").values()
        assert not list(differences({"<task id>": ["string", {**recorded_request(shape), "args": "object"}]}, shown))
        assert {task_id: state for task_id, (state, _) in found.items()} == {running[0]: "active", waiting: "reserved"}
    finally:
        for task_id in (*running, waiting, later):
            cluster.control.revoke(task_id, terminate=True, signal="SIGKILL", reply=True, timeout=5, limit=1)
    wait_until(lambda: not cluster.ask("active") and not cluster.ask("reserved"))
    assert set(running) <= set(cluster.ask("revoked"))


def test_a_connection_of_a_client_rests_without_harm(cluster, monkeypatch):
    """Between two uses nobody reads from it; its silence then is not the broker's."""
    assert cluster.control.ping(timeout=10, limit=1)
    real = time.monotonic
    for module in [module for name, module in sys.modules.items() if name.startswith("celery.transports.redis")]:
        if hasattr(module, "monotonic"):
            monkeypatch.setattr(module, "monotonic", lambda: real() + 3600)

    assert cluster.control.ping(timeout=10, limit=1) == [{"w1@here": {"ok": "pong"}}]


def test_pool_figures_have_the_recorded_shape(cluster):
    facts = json.loads((HERE.parents[1] / "facts" / "control.json").read_text())
    shape = facts["stats_pool_by_implementation"]["prefork"]["shape"]

    assert not list(differences(shape, cluster.ask("stats")["pool"]))


def test_commands_that_a_worker_lacks_or_that_break_are_errors(cluster):
    assert set(cluster.ask("no_such_command")) == {"error"}
    assert "no_such_command" in cluster.ask("no_such_command")["error"]
    assert cluster.ask("breaks") == {"error": "KeyError('broken')"}


def test_commands_of_the_user_are_asked_like_any_other(cluster):
    assert cluster.ask("doubled", factor=21) == {"doubled": 42, "node": "w1@here"}
    assert cluster.control.broadcast("say", {"words": ["a", "b"]}, reply=True, limit=1, timeout=10) == [
        {"w1@here": {"ok": "a b"}}
    ]


def test_commands_of_the_user_are_commands_of_the_program(cluster):
    def celery(*words):
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "controlapp", *words],
            cwd=HERE,
            env={**os.environ, "CONTROL_CONF": json.dumps(cluster.conf)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(celery("inspect", "doubled", "4", "--json")) == {"w1@here": {"doubled": 8, "node": "w1@here"}}
    assert json.loads(celery("control", "-j", "say", "a", "b")) == [{"w1@here": {"ok": "a b"}}]
    assert json.loads(celery("status", "-j", "-d", "w1@here")) == {"w1@here": {"ok": "pong"}}
    assert "doubled [N=1]" in celery("inspect", "--list")
    shown = celery("inspect", "ping")
    assert shown.splitlines()[:2] == ["->  w1@here: OK", "        pong"]
    assert "1 node online." in shown
    assert "c4n4ry" not in celery("inspect", "conf")


def test_nobody_is_none_and_somebody_is_by_name(cluster):
    control = cluster.control
    assert control.inspect(["nobody@here"], timeout=0.2).ping() is None
    assert control.ping(destination=["nobody@here"], timeout=0.2) == []
    assert control.inspect("w1@here", timeout=10, limit=1).ping() == {"ok": "pong"}
    assert control.inspect(["w1@here"], timeout=10, limit=1).ping() == {"w1@here": {"ok": "pong"}}
    assert control.inspect(timeout=10, limit=1).hello("me@here")["w1@here"].keys() == {"revoked", "clock"}


def test_nodes_are_chosen_by_pattern_and_each_answer_is_called_back(cluster):
    heard = []
    replies = cluster.control.broadcast(
        "ping", reply=True, timeout=10, limit=1, pattern="w1@*", matcher="glob", callback=heard.append
    )
    assert replies == heard == [{"w1@here": {"ok": "pong"}}]
    assert cluster.control.broadcast("ping", reply=True, timeout=0.3, pattern="x.*", matcher="pcre") == []
    inspect = cluster.control.inspect(timeout=10, limit=1, pattern=r"w\d@", matcher="pcre")
    assert inspect.ping() == {"w1@here": {"ok": "pong"}}


def test_what_has_no_answer_is_done_all_the_same(cluster):
    assert cluster.control.heartbeat() is None
    assert cluster.control.enable_events(reply=True, timeout=10, limit=1)[0]["w1@here"]["ok"]
    assert cluster.ask("ping") == {"ok": "pong"}


def test_two_workers_answer_each_and_only_the_one_that_is_meant_stops(cluster):
    cluster.start("w2@here", "--autoscale", "3,1")
    shape = recorded("pool_grow", "worker with --autoscale, or pool without this ability")
    try:
        replies = cluster.control.ping(timeout=5, limit=2)
        assert flatten_reply(replies) == {"w1@here": {"ok": "pong"}, "w2@here": {"ok": "pong"}}
        with pytest.warns(DuplicateNodenameWarning, match="w1@here"):
            flatten_reply([*replies, {"w1@here": {}}])
        assert set(cluster.ask("autoscale", "w2@here", max=4, min=1)) == {"ok"}
        for command in ("pool_grow", "pool_shrink"):
            assert not list(differences(shape, cluster.ask(command, "w2@here", n=1)))
        shape = json.loads((HERE.parents[1] / "facts" / "control.json").read_text())["stats_autoscaler"]["shape"]
        assert not list(differences(shape, cluster.ask("stats", "w2@here")["autoscaler"]))
    finally:
        cluster.control.shutdown(destination=["w2@here"])
        assert cluster.workers.pop("w2@here").wait(PATIENCE) == 0
    assert cluster.ask("ping") == {"ok": "pong"}


def test_waiting_tasks_can_be_purged(cluster):
    cluster.ask("cancel_consumer", queue=cluster.conf["task_default_queue"])
    for _ in range(3):
        cluster.send("add", 1)
    try:
        assert cluster.control.purge() == 3
        assert cluster.control.purge() == 0
    finally:
        cluster.ask("add_consumer", queue=cluster.conf["task_default_queue"])
