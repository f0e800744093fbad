"""Commands, sent to a real mailbox: their replies have the recorded shapes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from celery.exceptions import TaskRevokedError
from celery.worker import state
from celery.worker.control import Panel, control_command, inspect_command

FACTS = json.loads((Path(__file__).parents[2] / "facts" / "control.json").read_text())["commands"]


@pytest.fixture
def add(app):
    return app.task(shared=False, name="add")(lambda x, y: x + y)


@pytest.fixture
def release():
    """Set, it lets the task ``hold`` end."""
    release = threading.Event()
    yield release
    release.set()


@pytest.fixture
def hold(app, release):
    return app.task(shared=False, name="hold")(lambda: release.wait(10))


@pytest.fixture
def ask(app, add, hold, worker):
    """Send a command to the worker and return its reply."""

    def ask(method, **arguments):
        replies = app.control.broadcast(method, arguments=arguments, reply=True, timeout=5, limit=1)
        assert len(replies) == 1, f"{method}: {replies}"
        return replies[0]["w1@test"]

    return ask


@pytest.fixture
def books_are_kept(worker):
    """Wait until all is stored that the worker's main process has to store by now."""

    def books_are_kept():
        is_kept = threading.Event()
        worker.consumer.bookkeeper.submit(is_kept.set)
        assert is_kept.wait(10)

    return books_are_kept


@pytest.mark.parametrize("name", list(FACTS))
def test_the_table_knows_each_recorded_command(name):
    fact, meta = FACTS[name], Panel.meta[name]

    assert (meta.type, meta.alias, meta.visible) == (fact["type"], fact["alias"], fact["visible"])
    assert (meta.default_timeout, meta.variadic) == (fact["default_timeout"], fact["variadic"])
    names = [[argument, kind.__name__] for argument, kind in meta.args or ()]
    assert names == fact["args"]
    assert Panel.data[fact["alias"] or name] is Panel.data[name]


def test_a_command_of_the_user_is_answered(ask):
    @inspect_command(args=[("n", int)])
    def double(state, n):
        return {"twice": 2 * n, "app": state.app.main}

    try:
        assert ask("double", n=4)["twice"] == 8
    finally:
        del Panel.data["double"], Panel.meta["double"]


def test_an_error_in_a_command_is_the_reply(ask):
    @control_command()
    def broken(state):
        raise ValueError("no")

    try:
        assert ask("broken") == {"error": "ValueError('no')"}
        assert ask("ping") == {"ok": "pong"}
    finally:
        del Panel.data["broken"], Panel.meta["broken"]


def test_an_unknown_command_is_answered_with_an_error(ask):
    assert list(ask("nosuch")) == ["error"]


def test_ping(ask):
    assert ask("ping") == {"ok": "pong"}


def test_clock(ask):
    assert ask("clock")["clock"] > 0


def test_stats_have_the_recorded_keys(ask):
    (fact,) = (reply for reply in FACTS["stats"]["replies"] if reply["case"] == "default")
    stats = ask("stats")

    assert set(fact["shape"]) <= set(stats)
    assert set(stats["broker"]) == set(fact["shape"]["broker"])
    assert set(stats["rusage"]) == set(fact["shape"]["rusage"])


def test_registered(ask, add):
    assert "add" in ask("registered")
    assert "add [max_retries=3]" in ask("registered", taskinfoitems=["max_retries"])


def test_registered_shows_builtins_on_request(ask):
    assert "celery.chord_unlock" in ask("registered", builtins=True)


def test_conf_masks_secrets_and_is_plain(ask, app):
    app.conf.result_backend_transport_options = {"password": "s3cret"}
    conf = ask("conf", with_defaults=True)

    assert conf["enable_utc"] is True
    assert "s3cret" not in json.dumps(conf)


def test_report(ask):
    assert "software" in ask("report")["ok"]


def test_active_queues(ask, app):
    (fact,) = (reply for reply in FACTS["active_queues"]["replies"] if reply["case"] == "default")
    (queue,) = ask("active_queues")

    assert queue["name"] == app.conf.task_default_queue
    assert set(queue) == set(fact["shape"][0])
    assert set(queue["exchange"]) == set(fact["shape"][0]["exchange"])


def test_a_consumer_is_added_and_cancelled(ask, app, add, wait_until):
    def consumed():
        return {queue["name"] for queue in ask("active_queues")}

    assert ask("add_consumer", queue="more") == {"ok": "add consumer more"}
    wait_until(lambda: "more" in consumed())
    result = add.apply_async((1, 2), queue="more")
    wait_until(lambda: result.state == "SUCCESS")
    assert ask("cancel_consumer", queue="more") == {"ok": "no longer consuming from more"}
    wait_until(lambda: "more" not in consumed())


def test_revoke(ask):
    assert ask("revoke", task_id="aaa") == {"ok": "tasks {'aaa'} flagged as revoked"}
    assert ask("revoked") == ["aaa"]
    assert ask("revoke", task_id="aaa", terminate=True) == {"ok": "terminate: tasks unknown"}


def test_a_revoked_task_does_not_run(ask, app, add, wait_until):
    ask("revoke", task_id="id-9")
    result = add.apply_async((1, 2), task_id="id-9")
    wait_until(lambda: result.state == "REVOKED")


def test_who_waits_for_a_revoked_task_is_told_at_once(ask, app, add, books_are_kept):
    result = add.apply_async((1, 2), countdown=60)
    ask("revoke", task_id=[result.id, "nobody-knows-it"])
    books_are_kept()

    assert [app.AsyncResult(id).state for id in (result.id, "nobody-knows-it")] == ["REVOKED", "REVOKED"]
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(timeout=5)


def test_a_task_that_runs_or_has_ended_is_not_called_revoked(ask, app, add, hold, release, wait_until, books_are_kept):
    ended, running = add.delay(1, 2), hold.delay()
    assert ended.get(timeout=10) == 3
    wait_until(lambda: [request["id"] for request in ask("active")] == [running.id])
    ask("revoke", task_id=[ended.id, running.id])
    books_are_kept()

    assert [app.AsyncResult(id).state for id in (ended.id, running.id)] == ["SUCCESS", "PENDING"]
    release.set()
    assert running.get(timeout=10) is True


def test_a_store_that_is_down_does_not_keep_tasks_from_being_revoked(ask, app, monkeypatch, caplog, books_are_kept):
    monkeypatch.setattr(type(app.backend), "get_state", lambda self, task_id: 1 / 0)

    assert ask("revoke", task_id="id-7") == {"ok": "tasks {'id-7'} flagged as revoked"}
    assert ask("revoked") == ["id-7"]
    books_are_kept()
    assert "_mark_revoked failed: ZeroDivisionError" in caplog.text


def test_revoke_by_stamped_headers(ask):
    assert "ok" in ask("revoke_by_stamped_headers", headers={"k": ["v"]})
    assert "ok" in ask("revoke_by_stamped_headers", headers=["k=w", "l=x"])

    assert state.revoked_stamps == {"k": ["v", "w"], "l": ["x"]}


def test_a_word_that_is_no_stamp_is_refused(ask):
    reply = ask("revoke_by_stamped_headers", headers=["l=x", "k"])

    assert reply == {"error": "ValueError(\"'k' is no stamp: say header=value\")"}
    assert not state.revoked_stamps


def test_rate_limit(ask, app, add):
    assert ask("rate_limit", task_name="add", rate_limit="5/m") == {"ok": "new rate limit set successfully"}
    assert app.tasks["add"].rate_limit == "5/m"
    assert ask("rate_limit", task_name="add", rate_limit=0) == {"ok": "rate limit disabled successfully"}
    assert ask("rate_limit", task_name="nope", rate_limit="5/m") == {"error": "unknown task"}
    assert "Invalid rate limit" in ask("rate_limit", task_name="add", rate_limit="bad")["error"]


def test_a_rate_limit_of_an_unknown_unit_is_named(ask, app, add, caplog):
    reason = "'99/q' has the unit 'q', which is none of s, m and h, as in 10/m"
    assert ask("rate_limit", task_name="add", rate_limit="99/q") == {"error": f"Invalid rate limit string: {reason}"}
    assert app.tasks["add"].rate_limit is None
    assert f"Rate limit attempt for task add: {reason}" in caplog.text  # nobody may wait for the answer


def test_time_limit(ask, app, add):
    assert ask("time_limit", task_name="add", soft=5, hard=10) == {"ok": "time limits set successfully"}
    assert (app.tasks["add"].soft_time_limit, app.tasks["add"].time_limit) == (5, 10)
    assert ask("time_limit", task_name="nope", soft=5, hard=10) == {"error": "unknown task"}


def test_events_are_switched_on_and_off(ask, worker):
    assert ask("enable_events") == {"ok": "task events enabled"}
    assert ask("enable_events") == {"ok": "task events already enabled"}
    assert ask("disable_events") == {"ok": "task events disabled"}
    assert ask("disable_events") == {"ok": "task events already disabled"}


def test_heartbeat_has_an_empty_reply(ask):
    assert ask("heartbeat") is None


def test_hello_takes_and_gives_revoked_ids(ask):
    assert ask("hello", from_node="other@host", revoked=["r1"])["revoked"] == ["r1"]
    assert ask("hello", from_node="w1@test") is None


def test_what_is_not_enabled_is_an_error(ask):
    assert ask("autoscale", max=4, min=1) == {"error": "ValueError('Autoscale not enabled')"}
    assert ask("pool_restart") == {"error": "ValueError('Pool restarts not enabled')"}
    assert "error" in ask("pool_grow", n=1)


def test_memory_commands_answer(ask, monkeypatch):
    monkeypatch.setattr("celery.utils.debug._mem_sample", [])
    assert isinstance(ask("memdump", samples=2), str)
    ask("memsample")


def test_waiting_tasks_are_listed(ask, app, add, wait_until):
    result = add.apply_async((1, 2), countdown=3600)
    (entry,) = wait_until(lambda: ask("scheduled"))
    (fact,) = (reply for reply in FACTS["scheduled"]["replies"] if reply["case"] == "default")

    assert set(entry) == set(fact["shape"][0])
    assert set(entry["request"]) == set(fact["shape"][0]["request"])
    assert (entry["request"]["id"], entry["request"]["args"]) == (result.id, [1, 2])


def test_running_tasks_are_listed(ask, hold, release, wait_until):
    result = hold.delay()
    (entry,) = wait_until(lambda: ask("active"))
    (fact,) = (reply for reply in FACTS["active"]["replies"] if reply["case"] == "default")

    assert set(entry) == set(fact["shape"][0])
    assert entry["id"] == result.id
    assert ask("query_task", ids=[result.id])[result.id][0] == "active"
    assert ask("reserved") == []
    release.set()


def test_shutdown_stops_the_worker_and_is_not_answered(app, running, wait_until):
    with running() as worker:
        assert app.control.broadcast("shutdown", reply=True, timeout=0.5) == []
        wait_until(lambda: worker.blueprint.state == 3 or worker.blueprint.shutdown_complete.is_set())
