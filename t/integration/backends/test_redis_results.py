"""Results in a real Redis: what goes over the wire, and what happens when it is cut."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from types import SimpleNamespace

import pytest

pytest.importorskip("redis")

import redis

from celery import Celery
from celery.app.trace import child
from celery.exceptions import BackendStoreError, ChordError, TimeoutError

pytestmark = pytest.mark.redis


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A Redis of our own."""

    def __init__(self, directory, *options):
        self.port = free_port()
        self.directory = directory
        self.options = options
        self.process = None
        self.start()

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--save", "", "--dir", str(self.directory), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def client(self):
        return redis.Redis(port=self.port)

    def stop(self):
        self.process.kill()
        self.process.wait()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with server.client() as client:
        client.flushall()
        yield client


def close(app):
    backend = app.backend
    backend.flush()
    deferred = getattr(backend._local, "deferred", None)
    if deferred is not None and deferred.line is not None:
        deferred.line.close()
    backend._lines.close()
    backend._listeners.close()
    backend.result_consumer.stop()
    backend.client.close()
    app.close()


@pytest.fixture
def make(server, client):
    made = []

    def make(query="", url=None, **conf):
        app = Celery("redis", broker="memory://", backend=url or server.url + query, set_as_current=False)
        app.conf.update(conf)
        made.append(app)
        return app

    yield make
    for app in made:
        close(app)


@pytest.fixture
def app(make):
    return make()


def request_of(task_id, **fields):
    known = dict.fromkeys(
        ("group", "parent_id", "chord", "chain", "errbacks", "stamps", "stamped_headers", "task", "root_id")
    )
    known.update(id=task_id, children=[], delivery_info={}, ignore_result=False, group_index=None)
    return SimpleNamespace(**{**known, **fields})


def wait_for_key(client, key):
    deadline = time.monotonic() + 5
    while not client.exists(key):
        assert time.monotonic() < deadline, f"{key} did not appear"
        time.sleep(0.001)


def done(app, task_id, value=1, **fields):
    app.backend.mark_as_done(task_id, value, request=request_of(task_id, **fields))


class Commands:
    """What the server is told, from now on."""

    def __init__(self, client):
        self.client = client
        self.lines = []
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()
        self.ready.wait(5)

    def listen(self):
        with self.client.monitor() as monitor:
            self.ready.set()
            for command in monitor.listen():
                if command["command"].startswith("ECHO end"):
                    return
                self.lines.append(("lua " if command.get("client_type") == "lua" else "") + command["command"])

    def stop(self):
        with redis.Redis(port=self.client.connection_pool.connection_kwargs["port"]) as other:
            other.echo("end")
        self.thread.join(5)
        return [line for line in self.lines if not line.startswith(("CLIENT", "HELLO", "SELECT", "PING"))]


@pytest.fixture
def commands(server, client):
    with server.client() as watcher:
        watcher.ping()
        yield lambda: Commands(watcher)


# -- the wire


def test_a_store_is_one_transaction_without_a_read(app, commands):
    app.backend.client.ping()
    watched = commands()
    done(app, "t", 5)

    first, setting, publishing, last = watched.stop()
    assert (first, last) == ("MULTI", "EXEC")
    assert setting.startswith("SETEX celery-task-meta-t 86400 {")
    assert publishing.startswith("PUBLISH celery-task-meta-t {")
    assert setting.split(" ", 3)[3] == publishing.split(" ", 2)[2]


def test_a_wait_is_one_subscription_and_one_look(app, commands):
    watched = commands()
    with pytest.raises(TimeoutError):
        app.AsyncResult("t").get(timeout=0.2)
    assert watched.stop() == ["SUBSCRIBE celery-task-meta-t", "MGET celery-task-meta-t"]

    watched = commands()
    threading.Timer(0.1, done, (app, "t", 5)).start()
    assert app.AsyncResult("t").get(timeout=5) == 5
    lines = watched.stop()
    assert lines[:2] == ["SUBSCRIBE celery-task-meta-t", "MGET celery-task-meta-t"]
    assert lines[-1] == "UNSUBSCRIBE celery-task-meta-t"


def test_a_call_costs_nothing_of_the_store(app, commands):
    @app.task(name="add", shared=False)
    def add(x, y):
        return x + y

    watched = commands()
    add.delay(1, 2)

    assert watched.stop() == []


def test_many_are_awaited_in_few_trips(app, commands):
    results = app.ResultSet([app.AsyncResult(f"t{number}") for number in range(1200)])
    app.backend.defer_confirmations()
    for number in range(1200):
        done(app, f"t{number}", number)
    app.backend.flush()
    watched = commands()

    assert results.get(timeout=10) == list(range(1200))
    kinds = [line.split(" ", 1)[0] for line in watched.stop()]
    assert kinds == ["SUBSCRIBE"] * 3 + ["MGET"] * 3 + ["UNSUBSCRIBE"] * 3


def test_many_are_heard_as_they_end(app):
    results = app.ResultSet([app.AsyncResult(f"t{number}") for number in range(1200)])

    def finish():
        app.backend.defer_confirmations()
        for number in range(1200):
            done(app, f"t{number}", number)
        app.backend.flush()
        app.backend._local.deferred.line.close()

    thread = threading.Timer(0.1, finish)
    thread.start()

    assert results.get(timeout=10) == list(range(1200))
    thread.join()


@pytest.mark.parametrize(
    ("conf", "state", "ttl"),
    [
        ({}, "SUCCESS", 86400),
        ({"result_expires": 100}, "SUCCESS", 100),
        ({"result_expires": None}, "SUCCESS", -1),
        ({"result_expires": 0}, "SUCCESS", -1),
        ({"result_expires": 100, "result_failure_expires": 50}, "FAILURE", 50),
        ({"result_expires": 100, "result_failure_expires": 50}, "SUCCESS", 100),
        ({"result_expires": 100, "result_failure_expires": 50}, "REVOKED", 100),
        ({"result_expires": 100, "result_failure_expires": 0}, "FAILURE", -1),
    ],
)
def test_records_live_as_long_as_the_settings_say(make, client, conf, state, ttl):
    make(**conf).backend.store_result("t", None, state)

    assert client.ttl("celery-task-meta-t") == ttl


def test_a_global_prefix_stands_before_key_and_channel(make, client, commands):
    app = make(result_backend_transport_options={"global_keyprefix": "mine"})
    watched = commands()
    done(app, "t")

    assert client.keys() == [b"mine_celery-task-meta-t"]
    assert any(line.startswith("PUBLISH mine_celery-task-meta-t") for line in watched.stop())
    assert app.AsyncResult("t").get(timeout=1) == 1


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_of_redis_work(make, protocol):
    app = make(f"?protocol={protocol}")
    threading.Timer(0.1, done, (app, "t", 5)).start()

    assert app.AsyncResult("t").get(timeout=5) == 5
    assert app.AsyncResult("t").get(timeout=5) == 5


def test_a_server_that_knows_one_protocol_only_is_no_obstacle(make, monkeypatch):
    from celery.backends.redis.line import Line

    monkeypatch.setattr(Line, "prefer_pushes", lambda line: False)
    app = make("?protocol=2")
    results = app.ResultSet([app.AsyncResult(f"t{number}") for number in range(5)])
    done(app, "t0", 0)
    for number in range(1, 5):
        threading.Timer(0.05 * number, done, (app, f"t{number}", number)).start()

    assert results.get(timeout=5) == [0, 1, 2, 3, 4]
    assert app.AsyncResult("t0").get(timeout=5) == 0


# -- fencing


def test_a_late_loser_is_checked_in_one_step(app, client, commands):
    done(app, "t", "won")
    watched = commands()
    app.backend.mark_as_failure("t", KeyError("late"), request=request_of("t", delivery_info={"redelivered": True}))

    assert [line.split(" ")[0] for line in watched.stop()] == ["WATCH", "GET", "UNWATCH"]
    assert json.loads(client.get("celery-task-meta-t"))["result"] == "won"


def test_a_success_that_comes_between_look_and_write_is_kept(app, monkeypatch):
    backend = app.backend
    from celery.backends.redis import backend as module

    store = module._store
    interruptions = [lambda: done(app, "t", "won")]

    def interrupted(line, packet):
        if interruptions:
            monkeypatch.setattr(module, "_store", store)
            interruptions.pop()()
        return store(line, packet)

    monkeypatch.setattr(module, "_store", interrupted)
    backend.mark_as_revoked("t", "late")

    assert app.AsyncResult("t").get(timeout=1) == "won"


# -- confirmations


def test_deferred_stores_are_visible_before_they_are_confirmed(app, client):
    app.backend.defer_confirmations()
    done(app, "t", 5)
    app.backend.send_held()
    wait_for_key(client, "celery-task-meta-t")

    assert len(app.backend._local.deferred.unconfirmed) == 1
    assert json.loads(client.get("celery-task-meta-t"))["result"] == 5
    app.backend.flush()
    assert len(app.backend._local.deferred.unconfirmed) == 0


def test_what_a_store_does_not_take_now_is_stored_later(app, client):
    app.backend.defer_confirmations()
    client.config_set("maxmemory", 1)
    try:
        for number in range(300):  # more than may be outstanding at once
            done(app, f"owed-{number}", number)
        with pytest.raises(redis.exceptions.OutOfMemoryError) as refusal:
            app.backend.try_flush()
        assert app.backend.is_passing_trouble(refusal.value)
        assert client.get("celery-task-meta-owed-0") is None
    finally:
        client.config_set("maxmemory", 0)
    with pytest.raises(redis.exceptions.OutOfMemoryError):  # it is left alone for a moment: tasks are not to wait
        app.backend.try_flush()
    app.backend.flush()  # who waits does so

    assert [app.AsyncResult(f"owed-{number}").result for number in range(300)] == list(range(300))


def test_a_state_on_the_way_is_never_held_back(app, client):
    app.backend.defer_confirmations()
    app.backend.store_result("t", {"done": 1}, "PROGRESS", request=request_of("t"))
    wait_for_key(client, "celery-task-meta-t")
    app.backend.flush()


def test_a_thread_hears_of_what_it_holds_back_itself(app):
    app.backend.defer_confirmations()
    done(app, "t", 5)

    assert app.AsyncResult("t").get(timeout=5) == 5


def test_a_thread_reads_what_it_deferred(app):
    app.backend.defer_confirmations()
    for number in range(50):
        app.backend.store_result("t", number, "PROGRESS", request=request_of("t"))
        assert app.backend.get_task_meta("t")["result"] == number


def test_stores_that_are_cut_off_are_sent_again(app, client):
    app.backend.defer_confirmations()
    for number in range(30):
        done(app, f"t{number}", number)
        if number % 10 == 5:
            client.client_kill_filter(_type="normal", skipme=True)
    app.backend.flush()

    assert [app.AsyncResult(f"t{number}").get(timeout=5) for number in range(30)] == list(range(30))


def test_what_redis_refuses_is_an_error_at_flush(app, client):
    app.backend.defer_confirmations()
    client.execute_command("ACL", "SETUSER", "default", "-setex")
    try:
        done(app, "t")
        with pytest.raises(BackendStoreError, match=r"celery-task-meta-t.*setex"):
            app.backend.flush()
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+setex")
    done(app, "u")
    app.backend.flush()
    assert app.AsyncResult("u").get(timeout=1) == 1


def test_a_refusal_for_good_neither_ends_a_child_nor_makes_it_run_the_task_again(app, client, caplog):
    @app.task(name="add", shared=False)
    def add(x, y):
        return x + y

    runner = child.Runner(app)
    frame = child.Frame("add", "t", {"id": "t"}, {}, {}, ([1, 2], {}, {}), "", None, None, True, True, is_late=True)
    client.execute_command("ACL", "SETUSER", "default", "-setex")
    try:
        answer = child.Answer(*child.unpack(runner.run(child.pack(frame))))
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+setex")

    assert (answer.state, answer.value) == ("SUCCESS", "3")
    assert "Results could not be stored: Redis refused to store celery-task-meta-t" in caplog.text
    assert child.Answer(*child.unpack(runner.run(child.pack(frame)))).state == "SUCCESS"
    assert app.AsyncResult("t").get(timeout=1) == 3


def test_a_thread_leaves_a_server_that_has_become_a_replica(make, client):
    policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    app = make(result_backend_transport_options={"retry_policy": policy})
    app.backend.defer_confirmations()
    app.backend.incr("count")
    line = app.backend._local.deferred.line
    client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(redis.ReadOnlyError) as refusal:
            app.backend.incr("count")
    finally:
        client.replicaof("NO", "ONE")

    assert app.backend.is_passing_trouble(refusal.value)
    assert line.closed
    assert app.backend.incr("count") == 2


def test_confirmations_are_bounded(app):
    from celery.backends.redis.confirming import OUTSTANDING_MAX

    app.backend.defer_confirmations()
    for number in range(3 * OUTSTANDING_MAX):
        done(app, f"t{number}")
        assert len(app.backend._local.deferred.unconfirmed) < OUTSTANDING_MAX
    app.backend.flush()


# -- threads, processes, connections


def test_64_threads_at_once_each_get_their_own(app):
    found = {}

    def work(number):
        for round in range(5):
            task_id = f"t{number}-{round}"
            threading.Timer(0.001, done, (app, task_id, task_id)).start()
            found[task_id] = app.AsyncResult(task_id).get(timeout=20)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 320
    assert all(task_id == value for task_id, value in found.items())


def test_nothing_is_left_after_many_gets(app, client):
    for number in range(300):
        done(app, f"t{number}", number)
        assert app.AsyncResult(f"t{number}").get(timeout=5) == number
    for number in range(20):
        with pytest.raises(TimeoutError):
            app.AsyncResult(f"never{number}").get(timeout=0.001)
    gc.collect()
    deadline = time.monotonic() + 5
    while client.pubsub_channels() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert client.pubsub_channels() == []
    assert all(len(line.pushed) < 10 for line in app.backend._listeners._idle)
    assert len(client.client_list()) <= 4
    assert not app.backend._pending_results


def test_a_wait_that_is_given_up_closes_its_line(app, client):
    results = app.ResultSet([app.AsyncResult("a"), app.AsyncResult("b")])
    done(app, "a")
    iterator = results.iter_native(timeout=5)
    assert next(iterator)[0] == "a"
    iterator.close()
    deadline = time.monotonic() + 5
    while client.pubsub_channels() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert client.pubsub_channels() == []


def test_no_more_connections_than_allowed(make, client):
    app = make(redis_max_connections=3)
    threads = [threading.Thread(target=lambda: app.AsyncResult("t").get(timeout=10)) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while client.pubsub_numsub("celery-task-meta-t")[0][1] < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises((TimeoutError, redis.ConnectionError)):
        app.AsyncResult("other").get(timeout=0.2)
    done(app, "t")
    for thread in threads:
        thread.join()

    assert client.pubsub_numsub("celery-task-meta-t")[0][1] <= 3


def test_a_child_process_leaves_its_parent_s_connections_alone(app):
    done(app, "before", 1)
    app.backend.defer_confirmations()
    done(app, "deferred", 2)
    found = []
    waiter = threading.Thread(target=lambda: found.append(app.AsyncResult("from-child").get(timeout=10)))
    waiter.start()
    time.sleep(0.1)
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            assert app.AsyncResult("before").get(timeout=5) == 1
            done(app, "from-child", "hello")
            app.backend.flush()
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    waiter.join()
    app.backend.flush()

    assert found == ["hello"]
    assert app.AsyncResult("deferred").get(timeout=5) == 2


def test_waiting_survives_cut_connections(app, client):
    found = []
    waiter = threading.Thread(target=lambda: found.append(app.AsyncResult("t").get(timeout=20)))
    waiter.start()
    for _ in range(3):
        time.sleep(0.1)
        client.client_kill_filter(_type="pubsub")
        client.client_kill_filter(_type="normal", skipme=True)
    done(app, "t", "in the end")
    waiter.join()

    assert found == ["in the end"]


def test_a_result_that_ends_while_nobody_is_connected_is_found(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    app = Celery("restart", broker="memory://", backend=server.url, set_as_current=False)
    found = []
    waiter = threading.Thread(target=lambda: found.append(app.AsyncResult("t").get(timeout=30)))
    try:
        done(app, "other")
        waiter.start()
        time.sleep(0.2)
        server.stop()
        server.start()
        done(app, "t", 5)  # over a connection that is broken now
        waiter.join()
        assert found == [5]
        assert app.AsyncResult("other").get(timeout=5) == 1
    finally:
        close(app)
        server.stop()


@pytest.mark.parametrize("trouble", ["down", "stalled"])
def test_get_ends_in_time_whatever_the_server_does(tmp_path, trouble):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(tmp_path)
    app = Celery("trouble", broker="memory://", backend=server.url, set_as_current=False)
    try:
        done(app, "other")
        if trouble == "down":
            server.stop()
        else:
            server.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises((TimeoutError, redis.RedisError)):
            app.AsyncResult("t").get(timeout=0.5)
        assert time.monotonic() - began < 3
    finally:
        server.process.send_signal(signal.SIGCONT)
        server.stop()
        app.backend._lines.close()
        app.backend._listeners.close()
        app.close()


def test_a_wrong_password_is_said_at_once(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(tmp_path)
    with server.client() as client:
        client.config_set("requirepass", "right")
    app = Celery("wrong", broker="memory://", backend=f"redis://:wrong@127.0.0.1:{server.port}/0", set_as_current=False)
    try:
        began = time.monotonic()
        with pytest.raises(redis.AuthenticationError):
            app.AsyncResult("t").get(timeout=10)
        with pytest.raises(redis.AuthenticationError):
            done(app, "t")
        assert time.monotonic() - began < 2
    finally:
        app.backend._lines.close()
        app.close()
        server.stop()


def test_a_value_larger_than_a_subscriber_may_lag_is_found(app, client):
    client.config_set("client-output-buffer-limit", "pubsub 100kb 100kb 60")
    try:
        value = "x" * 2_000_000
        threading.Timer(0.1, done, (app, "pushed", value)).start()
        assert app.AsyncResult("pushed").get(timeout=10) == value
        assert app.AsyncResult("pushed").get(timeout=10) == value
    finally:
        client.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")


def test_on_message_hears_states_on_the_way(app):
    heard = []

    def work():
        for step in range(3):
            app.backend.store_result("t", step, "PROGRESS", request=request_of("t"))
            time.sleep(0.02)
        done(app, "t", "end")

    threading.Timer(0.1, work).start()
    app.AsyncResult("t").get(timeout=5, on_message=heard.append)

    assert [(meta["status"], meta["result"]) for meta in heard] == [
        ("PROGRESS", 0),
        ("PROGRESS", 1),
        ("PROGRESS", 2),
        ("SUCCESS", "end"),
    ]


def test_a_callback_of_another_result_is_called_while_one_waits(app):
    heard = []
    other = app.AsyncResult("other")
    other.then(heard.append)

    def work():
        done(app, "other", 1)
        time.sleep(0.05)
        done(app, "t", 2)

    threading.Timer(0.1, work).start()

    assert app.AsyncResult("t").get(timeout=5) == 2
    assert heard == [other]


def test_an_error_of_the_caller_s_is_no_lost_connection(app):
    def interrupted():
        raise ConnectionError("of the caller")

    with pytest.raises(ConnectionError, match="of the caller"):
        app.AsyncResult("t").get(timeout=5, interval=0.1, on_interval=interrupted)


def test_the_shared_consumer_serves_those_who_drive_it(app):
    consumer = app.backend.result_consumer
    result = app.AsyncResult("t")
    heard = []
    app.backend._pending_results.add(result)
    result.on_ready.then(heard.append)
    consumer.consume_from("t")
    assert consumer.subscribed_to == {b"celery-task-meta-t"}
    threading.Timer(0.1, done, (app, "t", 5)).start()
    for _ in consumer.drain_events_until(result.on_ready, timeout=5):
        pass

    assert heard == [result]
    assert consumer.subscribed_to == set()


# -- chords


@pytest.fixture
def chords(app):
    app.sent = []

    @app.task(name="body", shared=False)
    def body(values):
        return values

    app.finalize()
    signature = app.signature

    def recording(*args, **kwargs):
        made = signature(*args, **kwargs)
        if made.get("task") == "body":
            made.delay = lambda values: app.sent.append((made["options"].get("task_id"), values))
        return made

    app.signature = recording
    return app


def part(app, task_id, index, value=None, state="SUCCESS", group_id="g"):
    body = {
        "task": "body",
        "args": [],
        "kwargs": {},
        "options": {"task_id": "BODY"},
        "subtask_type": None,
        "immutable": False,
    }
    request = request_of(task_id, group=group_id, group_index=index, chord=body)
    if state == "SUCCESS":
        app.backend.mark_as_done(task_id, value, request=request)
    else:
        app.backend.mark_as_failure(task_id, value, request=request)


def begin(app, size, *members, group_id="g"):
    app.backend.apply_chord((group_id, [app.AsyncResult(member) for member in members]), None)
    app.backend.set_chord_size(group_id, size)


def test_a_chord_counts_under_the_recorded_keys(chords, client):
    begin(chords, 2, "a", "b")
    part(chords, "b", 1, "B")

    assert client.get("celery-taskset-meta-g.s") == b"2"
    assert client.zrange("celery-taskset-meta-g.j", 0, -1, withscores=True) == [(b'[1, "b", "SUCCESS", "B"]', 1.0)]
    assert client.smembers("celery-taskset-meta-g.d") == {b"b:1"}
    assert client.ttl("celery-taskset-meta-g.j") == 86400

    part(chords, "a", 0, "A")
    assert chords.sent == [("BODY", ["A", "B"])]
    assert client.get("celery-taskset-meta-g.c") == b"done"
    assert 0 < client.ttl("celery-taskset-meta-g.c") <= 300
    assert not client.exists(*(f"celery-taskset-meta-g.{key}" for key in "jtsd"))


def test_a_chord_s_commands_are_as_recorded(chords, commands):
    begin(chords, 1, "a")
    part(chords, "a", 0, group_id="warm-up")
    watched = commands()
    begin(chords, 1, "a")
    part(chords, "a", 0, 3)
    kinds = [line.split(" ")[0] for line in watched.stop() if not line.startswith(("lua", "EVAL "))]

    assert kinds == [
        "EVALSHA",
        *("DEL", "SET"),
        *("MULTI", "SETEX", "PUBLISH", "EXEC"),
        "EVALSHA",
        "GET",
        *("MULTI", "ZRANGE", "EXEC"),
        "EVALSHA",
        "EVALSHA",
    ]


def test_members_delivered_twice_release_the_body_once(chords):
    begin(chords, 3, "a", "b", "c")
    for task_id, index in (("a", 0), ("a", 0), ("b", 1), ("b", 1)):
        part(chords, task_id, index, task_id)
    assert chords.sent == []
    for task_id, index in (("c", 2), ("c", 2), ("a", 0)):
        part(chords, task_id, index, task_id)

    assert chords.sent == [("BODY", ["a", "b", "c"])]


def test_many_that_end_at_once_release_the_body_once(chords):
    begin(chords, 40, *(f"t{number}" for number in range(40)))
    threads = [
        threading.Thread(target=part, args=(chords, f"t{number}", number, number))
        for number in range(40)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert chords.sent == [("BODY", list(range(40)))]


def test_who_dies_with_the_claim_is_replaced(chords, client):
    begin(chords, 1, "a")
    client.set("celery-taskset-meta-g.c", "of-a-dead-process", ex=1)
    part(chords, "a", 0, 1)
    assert chords.sent == []
    client.delete("celery-taskset-meta-g.c")  # it has run out
    part(chords, "a", 0, 1)  # delivered again

    assert chords.sent == [("BODY", [1])]


def test_who_lost_the_claim_does_not_send(chords, client, monkeypatch):
    begin(chords, 1, "a")
    values_of = chords.backend._values_of

    def slow(*args):
        client.set("celery-taskset-meta-g.c", "of-another")
        return values_of(*args)

    monkeypatch.setattr(chords.backend, "_values_of", slow)
    part(chords, "a", 0, 1)

    assert chords.sent == []


def test_a_failed_member_fails_the_body_when_all_have_ended(chords):
    begin(chords, 2, "a", "b")
    part(chords, "a", 0, KeyError("x"), "FAILURE")
    assert chords.AsyncResult("BODY").state == "PENDING"
    part(chords, "b", 1, 2)

    assert chords.sent == []
    with pytest.raises(ChordError, match=r"Dependency a raised KeyError\('x'\)"):
        chords.AsyncResult("BODY").get(timeout=1)
    part(chords, "b", 1, 2)  # delivered again
    assert chords.sent == []


def test_a_body_that_is_a_member_itself_fails_its_own_chord_too(chords):
    outer = {"task": "body", "args": [], "kwargs": {}, "options": {"task_id": "OUTER"}, "subtask_type": None}
    options = {"task_id": "INNER", "group_id": "outer", "group_index": 0, "chord": outer}
    inner = {"task": "body", "args": [], "kwargs": {}, "options": options, "subtask_type": None}
    chords.backend.set_chord_size("outer", 1)
    begin(chords, 1, "a")
    request = request_of("a", group="g", group_index=0, chord=inner)
    chords.backend.mark_as_failure("a", KeyError("x"), request=request)

    assert isinstance(chords.backend.get_result("INNER"), ChordError)
    assert str(chords.backend.get_result("OUTER")).startswith("Dependency INNER raised ChordError(")


def test_members_may_be_added_while_it_runs(chords):
    begin(chords, 1, "a")
    chords.backend.add_to_chord("g", chords.AsyncResult("later"))
    part(chords, "a", 0, 1)
    assert chords.sent == []
    part(chords, "later", 1, 2)

    assert chords.sent == [("BODY", [1, 2])]


def test_a_header_that_is_not_flat_is_put_together_from_the_results(chords):
    inner = chords.GroupResult("inner", [chords.AsyncResult("b"), chords.AsyncResult("c")])
    chords.backend.apply_chord(("g", [chords.AsyncResult("a"), inner]), None)
    chords.backend.set_chord_size("g", 3)
    for index, task_id in enumerate("abc"):
        part(chords, task_id, index, task_id)

    assert chords.sent == [("BODY", ["a", ["b", "c"]])]


def test_without_order_the_parts_are_a_list(make, client):
    app = make(result_backend_transport_options={"result_chord_ordered": False})
    app.backend.set_chord_size("g", 3)
    part(app, "b", 1, "B")
    part(app, "a", 0, "A")

    assert client.lrange("celery-taskset-meta-g.j", 0, -1) == [b'[1, "b", "SUCCESS", "B"]', b'[1, "a", "SUCCESS", "A"]']


def test_what_counts_a_chord_may_expire_at_its_own_time(make, client):
    app = make(result_chord_expires=77)
    app.backend.set_chord_size("g", 2)
    part(app, "a", 0)

    assert {client.ttl(f"celery-taskset-meta-g.{key}") for key in "jsd"} == {77}


def test_a_big_header_is_released(chords):
    size = 2000
    begin(chords, size)
    chords.backend.defer_confirmations()
    for number in range(size):
        part(chords, str(uuid.uuid4()), number, number)

    assert chords.sent == [("BODY", list(range(size)))]


# -- sentinel


class Sentinel:
    """A master, a replica, and a sentinel that watches them."""

    def __init__(self, directory):
        (directory / "m").mkdir()
        (directory / "r").mkdir()
        (directory / "s").mkdir()
        self.master = Server(directory / "m")
        self.replica = Server(directory / "r", "--replicaof", "127.0.0.1", str(self.master.port))
        self.port = free_port()
        config = directory / "s" / "sentinel.conf"
        config.write_text(
            f"port {self.port}\ndir {directory / 's'}\n"
            f"sentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        )
        self.process = subprocess.Popen(["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        self.wait_for(lambda client: client.sentinel_slaves("main"))

    def wait_for(self, claim):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
                if claim(client):
                    return
            time.sleep(0.1)
        raise AssertionError("sentinel is not ready")

    def master_port(self):
        with redis.Redis(port=self.port) as client:
            return int(client.sentinel_get_master_addr_by_name("main")[1])

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.master.stop()
        self.replica.stop()


@pytest.mark.slow
def test_a_wait_survives_a_failover(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    sentinel = Sentinel(tmp_path)
    app = Celery(
        "sentinel", broker="memory://", backend=f"sentinel://127.0.0.1:{sentinel.port}/0", set_as_current=False
    )
    app.conf.result_backend_transport_options = {"master_name": "main"}
    found = []
    waiter = threading.Thread(target=lambda: found.append(app.AsyncResult("t").get(timeout=40)))
    try:
        done(app, "before", 1)
        assert app.AsyncResult("before").get(timeout=5) == 1
        waiter.start()
        time.sleep(0.2)
        sentinel.master.stop()
        sentinel.wait_for(lambda client: sentinel.master_port() == sentinel.replica.port)
        done(app, "t", "after")
        waiter.join()
        assert found == ["after"]
    finally:
        close(app)
        sentinel.stop()


# -- what settings reach the server


def test_a_connection_carries_the_configured_name(make, client):
    app = make(redis_client_name="my-results")
    done(app, "t")

    assert "my-results" in {each["name"] for each in client.client_list()}


def test_a_user_with_few_rights_is_enough(make, client, server):
    client.acl_setuser(
        "few",
        enabled=True,
        passwords=["+pw"],
        keys=["celery-*"],
        channels=["celery-*"],
        commands=["+@read", "+@write", "+@transaction", "+@pubsub", "+@scripting", "+@connection"],
    )
    app = make(url=f"redis://few:pw@127.0.0.1:{server.port}/0")
    threading.Timer(0.1, done, (app, "t", 5)).start()

    assert app.AsyncResult("t").get(timeout=5) == 5


def test_a_waiting_connection_is_asked_for_signs_of_life(make, commands):
    app = make(redis_backend_health_check_interval=1)
    with pytest.raises(TimeoutError):
        app.AsyncResult("warm-up").get(timeout=0.01)
    watched = commands()
    with pytest.raises(TimeoutError):
        app.AsyncResult("t").get(timeout=1.5)
    watched.stop()

    assert sum(line.startswith("PING") for line in watched.lines) >= 1


def test_a_server_that_gives_no_sign_of_life_is_left(tmp_path, caplog):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(tmp_path)
    url = f"{server.url}?health_check_interval=1"
    app = Celery("stalled", broker="memory://", backend=url, set_as_current=False)
    found = []
    waiter = threading.Thread(target=lambda: found.append(app.AsyncResult("t").get(timeout=30)))
    try:
        done(app, "warm-up")
        waiter.start()
        time.sleep(0.2)
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        server.process.send_signal(signal.SIGCONT)
        done(app, "t", 5)
        waiter.join()
        assert found == [5]
        assert "no sign of life" in caplog.text
    finally:
        server.process.send_signal(signal.SIGCONT)
        close(app)
        server.stop()


def test_results_over_tls(tmp_path):
    if shutil.which("redis-server") is None or shutil.which("openssl") is None:
        pytest.skip("redis-server or openssl is not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    tls_port = free_port()
    files = ["--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")]
    try:
        server = Server(
            tmp_path, "--tls-port", str(tls_port), *files, "--tls-ca-cert-file", str(tmp_path / "cert.pem"),
            "--tls-auth-clients", "no",
        )  # fmt: skip
    except AssertionError:
        pytest.skip("redis-server speaks no TLS")
    url = f"rediss://localhost:{tls_port}/0?ssl_cert_reqs=required&ssl_ca_certs={tmp_path / 'cert.pem'}"
    app = Celery("tls", broker="memory://", backend=url, set_as_current=False)
    try:
        app.backend.defer_confirmations()
        for number in range(100):
            done(app, f"t{number}", "x" * 10_000)
        app.backend.flush()
        threading.Timer(0.1, done, (app, "late", "y" * 500_000)).start()

        assert app.AsyncResult("late").get(timeout=10) == "y" * 500_000
        results = app.ResultSet([app.AsyncResult(f"t{number}") for number in range(100)])
        assert set(results.get(timeout=10)) == {"x" * 10_000}
    finally:
        close(app)
        server.stop()


def test_results_over_a_unix_socket(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(tmp_path, "--unixsocket", str(tmp_path / "redis.sock"))
    app = Celery("unix", broker="memory://", backend=f"redis+socket://{tmp_path}/redis.sock", set_as_current=False)
    try:
        done(app, "t", 5)
        assert app.AsyncResult("t").get(timeout=5) == 5
    finally:
        close(app)
        server.stop()
