"""What all stores share: packing, retries, outcomes, errbacks, the disabled store."""

from __future__ import annotations

import warnings
from datetime import timedelta
from types import SimpleNamespace

import pytest
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from celery import Celery
from celery.backends.base import BaseBackend, KeyValueStoreBackend
from celery.exceptions import BackendGetMetaError, BackendStoreError, ImproperlyConfigured


@pytest.fixture
def app():
    app = Celery("base", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.backend.client.cache.clear()
    yield app
    app.backend.client.cache.clear()
    app.close()


def request_of(task_id, **fields):
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
            "root_id",
            "group_index",
        )
    )
    known.update(id=task_id, children=[], delivery_info={}, ignore_result=False)
    return SimpleNamespace(**{**known, **fields})


class Dict(KeyValueStoreBackend):
    """A store in a dict; ``errors`` are raised first."""

    supports_result_compression = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.data = {}
        self.errors = []
        self.slept = []

    def _maybe_fail(self):
        if self.errors:
            raise self.errors.pop(0)

    def get(self, key):
        self._maybe_fail()
        return self.data.get(key)

    def set(self, key, value):
        self._maybe_fail()
        self.data[key] = value

    def mget(self, keys):
        return [self.data.get(key) for key in keys]

    def delete(self, key):
        self.data.pop(key, None)

    def exception_safe_to_retry(self, exc):
        return isinstance(exc, OSError)

    def _sleep(self, seconds):
        self.slept.append(seconds)


def dict_store(app, **conf):
    app.conf.update(conf)
    return Dict(app=app)


# -- settings


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        (None, None, 86400.0),
        (10, None, 10),
        (10.7, int, 10),
        (timedelta(hours=1), None, 3600.0),
        (timedelta(hours=1), int, 3600),
        (0, None, 0),
    ],
)
def test_expiry_is_in_seconds(app, given, kind, expected):
    assert app.backend.prepare_expires(given, kind) == expected


def test_no_expiry_stays_none(app):
    app.conf.result_expires = None

    assert app.backend.prepare_expires(None, int) is None


def test_persistence_is_the_call_s_the_setting_s_or_the_store_s(app):
    backend = app.backend

    assert backend.prepare_persistent(False) is False
    assert backend.prepare_persistent() is True
    app.conf.result_persistent = False
    assert backend.prepare_persistent() is False


def test_a_password_is_masked(app):
    store = BaseBackend(app, url="redis://user:secret@host:1/2")

    assert "secret" not in store.as_uri()
    assert store.as_uri(include_password=True) == "redis://user:secret@host:1/2"


def test_a_global_prefix_stands_before_every_key(app):
    app.conf.result_backend_transport_options = {"global_keyprefix": "mine"}
    store = Dict(app=app)

    assert store.get_key_for_task("t") == b"mine_celery-task-meta-t"
    assert store.get_key_for_group("g", ".j") == b"mine_celery-taskset-meta-g.j"
    assert store.get_key_for_chord("g") == b"mine_chord-unlock-g"


@pytest.mark.parametrize("name", ["get_key_for_task", "get_key_for_group", "get_key_for_chord"])
@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_id_has_no_key(app, name, empty):
    with pytest.raises(ValueError, match="must not be empty"):
        getattr(app.backend, name)(empty)


# -- packing


@pytest.mark.parametrize("name", ["gzip", "zlib", "bzip2", "lzma", "application/x-gzip"])
def test_compressed_records_are_read_whatever_the_setting_is_then(app, name):
    store = dict_store(app, result_compression=name)
    store.store_result("t", {"x": 1}, "SUCCESS")
    payload = store.data[b"celery-task-meta-t"]
    app.conf.result_compression = None
    reader = Dict(app=app)
    reader.data = store.data

    assert payload.startswith(b"\x00celery-compressed\x00application/x-")
    assert reader.get_result("t") == {"x": 1}


def test_a_bomb_is_not_decompressed(app, monkeypatch):
    monkeypatch.setattr("celery.backends.codec.MOST_RECORD_BYTES", 1000)
    store = dict_store(app, result_compression="gzip")
    store.store_result("t", "x" * 2000, "SUCCESS")

    with pytest.raises(DecodeError, match="compressed"):
        store.get_result("t")


def test_an_unknown_compression_is_refused_with_those_that_exist(app):
    with pytest.raises(ImproperlyConfigured, match=r"zippp.*Known: .*gzip"):
        dict_store(app, result_compression="zippp")


def test_a_store_that_cannot_hold_bytes_warns(app):
    app.conf.result_compression = "gzip"
    with pytest.warns(UserWarning, match="result_compression"):
        assert BaseBackend(app).compression is None


def test_an_unknown_serializer_is_refused_with_those_that_exist(app):
    with pytest.raises(ImproperlyConfigured, match=r"jsn.*Known: .*json"):
        BaseBackend(app, serializer="jsn")


def test_what_a_serializer_cannot_carry_is_an_encode_error(app):
    with pytest.raises(EncodeError):
        app.backend.store_result("t", object(), "SUCCESS")


def test_content_that_is_not_accepted_is_refused(app):
    app.conf.update(result_serializer="pickle", accept_content=["json"])
    store = Dict(app=app)
    store.store_result("t", (1, 2), "SUCCESS")

    with pytest.raises(ContentDisallowed):
        store.get_result("t")


def test_another_serializer_s_record_is_a_decode_error(app):
    store = dict_store(app)
    store.data[b"celery-task-meta-t"] = b"\x80\x04N."

    with pytest.raises(DecodeError):
        store.get_result("t")


def test_results_as_values_are_stored_as_tuples(app):
    group = app.GroupResult("g", [app.AsyncResult("a")])

    assert app.backend.prepare_value(group) == group.as_tuple()
    assert app.backend.prepare_value(app.AsyncResult("a")) == (("a", None), None)


def test_an_exception_as_a_value_is_no_failure(app):
    error = KeyError("x")

    assert app.backend.encode_result(error, "SUCCESS") is error
    assert app.backend.encode_result(error, "RETRY")["exc_type"] == "KeyError"


# -- retries


def test_without_the_setting_an_error_is_raised_as_it_is(app):
    store = dict_store(app)
    store.errors = [OSError("down")]

    with pytest.raises(OSError, match="down"):
        store.store_result("t", 1, "SUCCESS", request=request_of("t"))
    assert store.slept == []


def test_with_the_setting_it_is_done_again_after_growing_pauses(app):
    store = dict_store(app, result_backend_always_retry=True, result_backend_max_sleep_between_retries_ms=200)
    store.errors = [OSError("down")] * 12
    store.store_result("t", 1, "SUCCESS", request=request_of("t"))

    assert len(store.slept) == 12
    assert all(0 <= pause <= 0.2 for pause in store.slept)
    assert store.get_result("t") == 1


def test_when_no_try_is_left_the_error_names_the_task(app):
    store = dict_store(app, result_backend_always_retry=True, result_backend_max_retries=2)
    store.errors = [OSError("down")] * 3
    with pytest.raises(BackendStoreError) as caught:
        store.store_result("t", 1, "SUCCESS", request=request_of("t"))
    assert (caught.value.task_id, caught.value.state) == ("t", "SUCCESS")
    assert isinstance(caught.value.__cause__, OSError)

    store.errors = [OSError("down")] * 3
    with pytest.raises(BackendGetMetaError) as caught:
        store.get_task_meta("t")
    assert caught.value.task_id == "t"


def test_a_bug_is_not_tried_again(app):
    store = dict_store(app, result_backend_always_retry=True)
    store.errors = [ZeroDivisionError()]

    with pytest.raises(ZeroDivisionError):
        store.get_task_meta("t")


# -- cache


def test_successes_are_cached_if_asked_for(app):
    store = dict_store(app, result_cache_max=10)
    store.store_result("s", 1, "SUCCESS")
    store.store_result("p", 1, "STARTED")
    store.get_task_meta("s")
    store.get_task_meta("p")

    assert (store.is_cached("s"), store.is_cached("p")) == (True, False)
    store.data.clear()
    assert store.get_result("s") == 1
    store.reload_task_result("s")
    store.forget("s")
    assert not store.is_cached("s")


def test_by_default_nothing_is_cached(app):
    store = dict_store(app)
    store.store_result("s", 1, "SUCCESS")
    store.get_task_meta("s")

    assert not store.is_cached("s")


# -- fencing


def test_the_one_who_runs_the_task_does_not_read_first(app):
    store = dict_store(app)
    store.get = lambda key: pytest.fail("read before write")
    store.store_result("t", 1, "SUCCESS", request=request_of("t"))

    assert b"celery-task-meta-t" in store.data


@pytest.mark.parametrize("state", ["FAILURE", "REVOKED", "RETRY", "STARTED"])
def test_another_writer_does_not_undo_a_success(app, state):
    store = dict_store(app)
    store.store_result("t", 1, "SUCCESS")
    store.store_result("t", None, state)

    assert store.get_state("t") == "SUCCESS"


def test_a_failure_is_overwritten_by_a_later_run(app):
    store = dict_store(app)
    store.store_result("t", KeyError("x"), "FAILURE")
    store.store_result("t", 1, "SUCCESS", request=request_of("t", delivery_info={"redelivered": True}))

    assert store.get_state("t") == "SUCCESS"


# -- outcomes


def test_an_ignored_result_is_not_stored(app):
    app.backend.mark_as_done("t", 1, request=request_of("t", ignore_result=True))

    assert app.backend.get_state("t") == "PENDING"


def test_without_storing_the_rest_is_done_all_the_same(app):
    told = []

    @app.task(name="tell", shared=False)
    def tell(request, exc, traceback):
        told.append((request.id, exc, traceback))

    error = KeyError("x")
    app.backend.mark_as_failure("t", error, "tb", request=request_of("t", errbacks=[tell.s()]), store_result=False)

    assert app.backend.get_state("t") == "PENDING"
    assert told == [("t", error, "tb")]


def test_the_rest_of_a_chain_fails_with_its_step(app):
    steps = [
        {"task": "t.last", "args": [], "kwargs": {}, "options": {"task_id": "last"}},
        {"task": "t.next", "args": [], "kwargs": {}, "options": {"task_id": "next"}},
    ]
    app.backend.mark_as_failure("t", KeyError("x"), "tb", request=request_of("t", chain=steps))

    for task_id in ("t", "next", "last"):
        assert app.backend.get_state(task_id) == "FAILURE"
        assert isinstance(app.backend.get_result(task_id), KeyError)


def test_a_failing_step_counts_for_the_chord_its_chain_is_part_of(app):
    counted = []
    app.backend.on_chord_part_return = lambda request, state, result: counted.append((request.id, request.group, state))
    step = {
        "task": "t.last",
        "args": [],
        "kwargs": {},
        "options": {"task_id": "last", "group_id": "g", "chord": {"task": "t.body"}},
    }
    app.backend.mark_as_failure("t", KeyError("x"), request=request_of("t", chain=[step]))

    assert counted == [("last", "g", "FAILURE")]


def test_failing_from_the_stack_stores_what_is_being_handled(app):
    try:
        raise KeyError("handled")
    except KeyError:
        info = app.backend.fail_from_current_stack("t")
    app.backend.fail_from_current_stack("u", exc=ValueError("given"))

    assert isinstance(app.backend.get_result("t"), KeyError)
    assert "handled" in app.backend.get_traceback("t")
    assert "handled" in str(info.traceback)
    assert isinstance(app.backend.get_result("u"), ValueError)


# -- errbacks


@pytest.fixture
def errbacks(app):
    app.told = []

    @app.task(name="old", shared=False)
    def old(task_id):
        app.told.append(("old", task_id))

    @app.task(name="new", shared=False)
    def new(request, exc, traceback):
        app.told.append(("new", request.id, exc, traceback))

    @app.task(name="bound", bind=True, shared=False)
    def bound(self, request, exc, traceback):
        app.told.append(("bound", self.name, request.id))

    @app.task(name="extra", shared=False)
    def extra(request, exc, traceback, more):
        app.told.append(("extra", more))

    @app.task(name="two", shared=False)
    def two(task_id, other=None):
        app.told.append(("two", task_id))

    @app.task(name="anything", shared=False)
    def anything(*args):
        app.told.append(("anything", len(args)))

    @app.task(name="broken", shared=False)
    def broken(request, exc, traceback):
        raise ZeroDivisionError("in the errback")

    app.finalize()
    return app


def fail(app, *signatures, **fields):
    sent = []
    app.send_task = lambda name, args, kwargs, **options: sent.append((name, tuple(args), options))
    error = KeyError("x")
    app.conf.task_always_eager = fields.pop("eager", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app.backend.mark_as_failure("t", error, "tb", request=request_of("t", errbacks=list(signatures), **fields))
    return error


def test_an_errback_of_one_argument_gets_the_id(errbacks):
    fail(errbacks, errbacks.tasks["old"].s())

    assert errbacks.told == [("old", "t")]


def test_an_errback_of_three_arguments_gets_request_exception_and_traceback(errbacks):
    error = fail(errbacks, errbacks.tasks["new"].s())

    assert errbacks.told == [("new", "t", error, "tb")]


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("bound", (), ("bound", "bound", "t")),
        ("extra", ("m",), ("extra", "m")),
        ("two", (), ("two", "t")),
        ("anything", (), ("anything", 3)),
    ],
)
def test_errbacks_of_other_shapes_get_what_they_can_take(errbacks, name, given, told):
    fail(errbacks, errbacks.tasks[name].s(*given))

    assert errbacks.told == [told]


def test_errbacks_may_be_plain_mappings(errbacks):
    fail(errbacks, dict(errbacks.tasks["new"].s()))

    assert errbacks.told[0][:2] == ("new", "t")


def test_an_errback_that_fails_stops_no_other(errbacks, caplog):
    fail(errbacks, errbacks.tasks["broken"].s(), errbacks.tasks["new"].s(), errbacks.tasks["old"].s())

    assert [told[0] for told in errbacks.told] == ["new", "old"]
    assert "broken" in caplog.text


def test_nobody_is_told_if_the_caller_says_so(errbacks):
    errbacks.backend.mark_as_failure(
        "t", KeyError("x"), request=request_of("t", errbacks=[errbacks.tasks["new"].s()]), call_errbacks=False
    )

    assert errbacks.told == []


# -- disabled


@pytest.fixture
def disabled():
    app = Celery("none", broker="memory://", set_as_current=False)
    yield app
    app.close()


def test_without_a_store_nothing_is_stored_and_nothing_breaks(disabled):
    disabled.backend.mark_as_done("t", 1)
    disabled.backend.mark_as_failure("t", KeyError("x"))

    assert disabled.backend.as_uri() == "disabled://"


@pytest.mark.parametrize(
    "ask",
    [
        lambda app: app.AsyncResult("t").state,
        lambda app: app.AsyncResult("t").get(),
        lambda app: app.AsyncResult("t").ready(),
        lambda app: app.AsyncResult("t").forget(),
        lambda app: app.GroupResult("g", [app.AsyncResult("t")]).get(),
        lambda app: app.GroupResult("g", [app.AsyncResult("t")]).ready(),
        lambda app: app.GroupResult("g", []).save(),
        lambda app: app.GroupResult.restore("g"),
        lambda app: app.backend.get_many(["t"]),
        lambda app: app.backend.wait_for("t"),
        lambda app: app.backend.ensure_chords_allowed(),
    ],
)
def test_without_a_store_reading_names_the_setting(disabled, ask):
    with pytest.raises(NotImplementedError, match="result_backend"):
        ask(disabled)


def test_who_looks_for_the_result_of_an_eager_task_is_warned():
    with Celery("eager", backend="cache+memory://", set_as_current=False) as app:
        app.conf.task_always_eager = True
        with pytest.warns(RuntimeWarning, match="the store never learns of this result"):
            assert app.AsyncResult("1").state == "PENDING"

        app.conf.task_store_eager_result = True
        assert app.AsyncResult("1").state == "PENDING"
