"""What every store for results promises; each store runs all of it."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from types import SimpleNamespace

import pytest

from celery import Celery
from celery._state import _task_stack
from celery.backends.codec import ResultTooLarge
from celery.exceptions import TaskRevokedError, TimeoutError

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
#: Not needed by CI: runs where there is one.
MYSQL = os.environ.get("TEST_MYSQL_URL", "mysql+pymysql://root@127.0.0.1:3306/test")
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")


def request_of(task_id, **fields):
    """A request as the worker would have it, with nothing but what is given."""
    known = dict.fromkeys(
        (
            "group",
            "parent_id",
            "chord",
            "chain",
            "errbacks",
            "stamps",
            "stamped_headers",
            "task",
            "args",
            "kwargs",
            "hostname",
        )
    )
    known.update(id=task_id, children=[], delivery_info={}, retries=0, ignore_result=False, root_id=task_id)
    return SimpleNamespace(**{**known, "correlation_id": task_id, "reply_to": None, "group_index": None, **fields})


class Store:
    """A backend under test, and the request that its answers go to."""

    def __init__(self, app):
        self.app = app
        self.backend = app.backend
        self.reply_to = app.thread_oid
        self.is_message_store = self.backend.as_uri().startswith("rpc")
        if self.is_message_store:
            with app.producer_or_acquire() as producer:
                self.backend.on_task_call(producer, "first")

    def new_id(self):
        return str(uuid.uuid4())

    def request(self, task_id, **fields):
        return request_of(task_id, reply_to=self.reply_to, **fields)

    def done(self, task_id, value, **fields):
        self.backend.mark_as_done(task_id, value, request=self.request(task_id, **fields))

    def result(self, task_id):
        return self.app.AsyncResult(task_id)

    def meta(self, task_id, status):
        """Read until the record has this status; messages take their time."""
        deadline = time.monotonic() + 5
        while True:
            meta = self.backend.get_task_meta(task_id)
            if meta["status"] == status or time.monotonic() > deadline:
                return meta
            time.sleep(0.005)


def url_of(kind, tmp_path, address=""):
    return {
        "memcached": f"cache+memcached://{address}/",
        "memcached-python": f"cache+memcached://{address}/",
        "memory": "cache+memory://",
        "file": f"file://{tmp_path}",
        "sqlite": f"db+sqlite:///{tmp_path}/results.db",
        "redis": f"{REDIS}/11",
        "postgres": f"db+{POSTGRES.replace('postgresql://', 'postgresql+psycopg2://')}",
        "mysql": f"db+{MYSQL}",
        "rpc-memory": "rpc://",
        "rpc": "rpc://",
    }[kind]


ALL = [
    "memory",
    "file",
    "sqlite",
    "rpc-memory",
    "memcached",
    # It leaves the sockets of threads that have ended to the garbage collector.
    pytest.param(
        "memcached-python", marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    ),
    "mysql",
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("postgres", marks=pytest.mark.postgres),
    pytest.param("rpc", marks=pytest.mark.rabbitmq),
]


@pytest.fixture(params=ALL)
def kind(request):
    if request.param == "redis":
        client = pytest.importorskip("redis").Redis.from_url(f"{REDIS}/11")
        yield request.param
        client.flushdb()
        client.close()
    elif request.param.startswith("memcached"):
        request.getfixturevalue("memcached")
        if request.param.endswith("python"):
            request.getfixturevalue("monkeypatch").setitem(sys.modules, "pylibmc", None)
        yield request.param
    elif request.param == "mysql" and not answers(MYSQL):
        pytest.skip("no MySQL or MariaDB here")
    else:
        yield request.param


def answers(url):
    """Return whether there is such a database."""
    engine = pytest.importorskip("sqlalchemy").create_engine(url)
    try:
        engine.connect().close()
    except Exception:  # each driver has its own
        return False
    finally:
        engine.dispose()
    return True


@pytest.fixture(scope="module")
def memcached():
    """A memcached of these tests; returns its address."""
    if shutil.which("memcached") is None:
        pytest.skip("memcached is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["memcached", "-l", "127.0.0.1", "-p", str(port), "-u", "nobody"])
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "memcached does not listen"
            time.sleep(0.01)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


@pytest.fixture
def make(kind, tmp_path, request):
    made = []
    address = request.getfixturevalue("memcached") if kind.startswith("memcached") else ""

    def make(**conf):
        broker = AMQP if kind == "rpc" else f"memory://{uuid.uuid4().hex}"
        app = Celery("contract", broker=broker, backend=url_of(kind, tmp_path, address), set_as_current=False)
        app.conf.update(conf)
        made.append(app)
        return Store(app)

    yield make
    for app in made:
        backend = app.backend
        consumer = getattr(backend, "result_consumer", None)
        if consumer is not None:
            consumer.stop()
        if hasattr(backend, "session_manager"):
            backend.session_manager.invalidate(backend.url)
        if hasattr(backend, "_lines"):
            backend._lines.close()
            backend._listeners.close()
            backend.client.close()
        if kind == "memcached-python":
            backend.client.disconnect_all()
        app.close()
    if kind == "memcached-python":
        gc.collect()


@pytest.fixture
def store(make):
    return make()


def test_of_an_unknown_task_nothing_is_known(store):
    result = store.result(store.new_id())

    assert (result.state, result.result, result.ready(), result.children) == ("PENDING", None, False, None)


def test_a_value_is_read_as_it_was_stored(store):
    task_id = store.new_id()
    store.done(task_id, {"n": [1, 2.5, None, "ä"]})

    assert store.result(task_id).get(timeout=5) == {"n": [1, 2.5, None, "ä"]}


def test_an_exception_is_raised_as_its_own_class_with_its_traceback(store):
    task_id = store.new_id()
    store.backend.mark_as_failure(task_id, KeyError("boom", 3), traceback="Traceback …", request=store.request(task_id))
    result = store.result(task_id)

    with pytest.raises(KeyError) as caught:
        result.get(timeout=5)
    assert caught.value.args == ("boom", 3)
    assert (result.state, result.failed(), result.traceback) == ("FAILURE", True, "Traceback …")
    assert isinstance(result.get(propagate=False), KeyError)


def test_a_revoked_task_says_so(store):
    task_id = store.new_id()
    store.backend.mark_as_revoked(task_id, "terminated", request=store.request(task_id))

    with pytest.raises(TaskRevokedError, match="terminated"):
        store.result(task_id).get(timeout=5)


def test_states_on_the_way_are_seen_and_are_not_the_end(store):
    task_id = store.new_id()
    request = store.request(task_id)
    store.backend.store_result(task_id, {"pid": 1}, "STARTED", request=request)
    assert store.meta(task_id, "STARTED")["result"] == {"pid": 1}
    store.backend.store_result(task_id, {"done": 1}, "PROGRESS", request=request)
    assert store.meta(task_id, "PROGRESS")["result"] == {"done": 1}
    store.backend.mark_as_retry(task_id, ValueError("again"), traceback="tb", request=request)
    assert isinstance(store.meta(task_id, "RETRY")["result"], ValueError)

    assert not store.result(task_id).ready()


def test_waiting_ends_in_time(store):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        store.result(store.new_id()).get(timeout=0.1)

    assert time.monotonic() - began < 3


def test_who_waits_is_told_soon(store):
    task_id = store.new_id()
    threading.Timer(0.05, store.done, (task_id, 7)).start()
    began = time.monotonic()

    assert store.result(task_id).get(timeout=10) == 7
    assert time.monotonic() - began < 2


def test_many_threads_each_get_their_own(store):
    ids = [store.new_id() for _ in range(24)]
    found = {}

    def wait(number, task_id):
        found[number] = store.result(task_id).get(timeout=20, interval=0.05)

    threads = [threading.Thread(target=wait, args=item) for item in enumerate(ids)]
    for thread in threads:
        thread.start()
    for number, task_id in enumerate(ids):
        store.done(task_id, number)
    for thread in threads:
        thread.join()

    assert found == {number: number for number in range(24)}


def test_two_who_wait_for_one_task_both_get_it(store):
    task_id = store.new_id()
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.result(task_id).get(timeout=20))) for _ in range(2)]
    if store.is_message_store:
        pytest.skip("a message is read once")
    for thread in threads:
        thread.start()
    store.done(task_id, "both")
    for thread in threads:
        thread.join()

    assert found == ["both", "both"]


def test_a_set_gives_values_in_order_whatever_the_order_of_ending(store):
    ids = [store.new_id() for _ in range(30)]
    results = store.app.ResultSet([store.result(task_id) for task_id in ids], app=store.app)

    def finish():
        for number, task_id in reversed(list(enumerate(ids))):
            store.done(task_id, number)

    threading.Timer(0.05, finish).start()

    assert results.get(timeout=20, interval=0.05) == list(range(30))
    assert results.ready()
    assert results.successful()
    assert results.completed_count() == 30


def test_a_set_raises_what_a_member_raised(store):
    good, bad = store.new_id(), store.new_id()
    store.done(good, 1)
    store.backend.mark_as_failure(bad, ValueError("bad"), request=store.request(bad))
    results = store.app.ResultSet([store.result(good), store.result(bad)], app=store.app)

    with pytest.raises(ValueError, match="bad"):
        results.get(timeout=10)


def test_a_callback_hears_of_the_end(store):
    task_id = store.new_id()
    heard = []
    result = store.result(task_id)
    result.then(heard.append)
    store.done(task_id, 3)
    result.get(timeout=10)

    assert heard == [result]


def test_what_is_forgotten_is_gone(store):
    task_id = store.new_id()
    store.done(task_id, 1)
    store.meta(task_id, "SUCCESS")
    store.backend.forget(task_id)

    assert store.result(task_id).state == "PENDING"


def test_a_late_loser_does_not_overwrite_a_success(store):
    if store.is_message_store:
        pytest.skip("a message cannot be overwritten")
    task_id = store.new_id()
    store.done(task_id, "first")
    again = store.request(task_id, delivery_info={"redelivered": True})
    store.backend.mark_as_done(task_id, "second", request=again)
    store.backend.mark_as_failure(task_id, ValueError("late"), request=again)
    store.backend.mark_as_revoked(task_id, "late")

    assert store.result(task_id).get(timeout=5) == "first"


@pytest.mark.parametrize("end", ["success", "failure", "revoked"])
def test_a_retry_that_is_told_late_does_not_undo_the_end_of_the_next_run(store, end):
    if store.is_message_store:
        pytest.skip("a message cannot be overwritten")
    task_id = store.new_id()
    if end == "success":
        store.done(task_id, "second run")
    elif end == "failure":
        store.backend.mark_as_failure(task_id, ValueError("second run"), request=store.request(task_id))
    else:
        store.backend.mark_as_revoked(task_id, "second run")
    state = store.result(task_id).state
    first_run = store.app.task(lambda: None, name="first run")
    first_run.push_request(id=task_id)
    _task_stack.push(first_run)
    try:
        store.backend.mark_as_retry(task_id, ValueError("first run"), request=store.request(task_id))
    finally:
        _task_stack.pop()
        first_run.pop_request()

    assert store.result(task_id).state == state


def test_groups_are_saved_found_and_deleted(store):
    if store.is_message_store:
        with pytest.raises(NotImplementedError, match="save_group"):
            store.app.GroupResult("g", [], app=store.app).save()
        return
    inner = store.app.GroupResult("inner", [store.result("c")])
    group = store.app.GroupResult(store.new_id(), [store.result("a"), store.result("b"), inner])
    group.save()
    found = store.app.GroupResult.restore(group.id)

    assert found == group
    assert found.as_tuple() == group.as_tuple()
    group.delete()
    assert store.app.GroupResult.restore(group.id) is None


def test_extended_records_tell_of_the_call(make):
    store = make(result_extended=True)
    task_id = store.new_id()
    store.done(
        task_id,
        1,
        task="t.add",
        args=[1, 2],
        kwargs={"k": "v"},
        hostname="w1@h",
        retries=2,
        delivery_info={"routing_key": "q"},
        stamps={"s": ["x"]},
        stamped_headers=["s"],
    )
    meta = store.meta(task_id, "SUCCESS")
    result = store.result(task_id)
    result._maybe_set_cache(dict(meta))

    assert (result.name, result.args, result.kwargs) == ("t.add", [1, 2], {"k": "v"})
    assert (result.worker, result.retries, result.queue) == ("w1@h", 2, "q")
    assert (meta["stamped_headers"], meta["s"]) == (["s"], ["x"])
    assert result.date_done is not None


def test_children_are_results_again(store):
    task_id = store.new_id()
    kid = store.result("kid")
    store.done(task_id, 1, children=[kid, store.app.GroupResult("g", [store.result("x")])])
    result = store.result(task_id)
    result.get(timeout=5)

    assert result.children == [kid, store.app.GroupResult("g", [store.result("x")])]


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_every_serializer_carries_values_and_errors(make, serializer):
    store = make(result_serializer=serializer, accept_content=[serializer], result_accept_content=[serializer])
    good, bad = store.new_id(), store.new_id()
    store.done(good, {"a": [1, 2]})
    store.backend.mark_as_failure(bad, KeyError("x"), request=store.request(bad))

    assert store.result(good).get(timeout=5) == {"a": [1, 2]}
    with pytest.raises(KeyError):
        store.result(bad).get(timeout=5)


def test_a_backend_survives_a_pickle(store):
    store.app.set_current()
    copy = pickle.loads(pickle.dumps(store.backend))

    assert type(copy) is type(store.backend)
    assert copy.as_uri() == store.backend.as_uri()


def test_a_child_process_stores_for_its_parent(store):
    if store.is_message_store or store.backend.as_uri().startswith("memory"):
        pytest.skip("another process shares nothing with this one, or no connection")
    task_id, own = store.new_id(), store.new_id()
    store.done(own, "parent")
    child = os.fork()
    if child == 0:
        try:
            store.done(task_id, "child")
            os._exit(0 if store.result(own).get(timeout=5) == "parent" else 1)
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.result(task_id).get(timeout=5) == "child"
    assert store.result(own).get(timeout=5) == "parent"


def test_deferred_confirmations_come_with_flush(store):
    ids = [store.new_id() for _ in range(20)]

    def work():
        store.backend.defer_confirmations()
        for number, task_id in enumerate(ids):
            store.done(task_id, number)
        store.backend.flush()

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()

    assert [store.result(task_id).get(timeout=5) for task_id in ids] == list(range(20))


LIMIT = {"result_backend_transport_options": {"max_result_bytes": 10_000}}


def test_what_is_too_large_is_not_stored(make, kind):
    if kind.startswith("rpc"):
        pytest.skip("a message has the bound of its broker")
    store = make(**LIMIT)
    task_id = store.new_id()
    with pytest.raises(ResultTooLarge, match=r"takes 2\d,\d\d\d bytes; at most 10,000 are allowed"):
        store.done(task_id, "x" * 20_000)
    assert store.meta(task_id, "PENDING")["status"] == "PENDING"


@pytest.mark.parametrize("culprit", ["exception", "arguments"])
def test_a_failure_is_stored_however_large_it_is(make, kind, culprit):
    if kind.startswith("rpc"):
        pytest.skip("a message has the bound of its broker")
    store = make(**LIMIT, result_extended=True)
    task_id = store.new_id()
    large, small = "x" * 20_000, "small"
    text, arguments = (large, [small]) if culprit == "exception" else (small, [large])
    request = store.request(task_id, args=arguments, kwargs={})
    store.backend.mark_as_failure(task_id, ValueError(text), request=request)
    meta = store.meta(task_id, "FAILURE")
    if culprit == "exception":
        assert isinstance(meta["result"], ResultTooLarge)
        assert "10,000" in str(meta["result"])
    else:
        assert repr(meta["result"]) == "ValueError('small')"
