"""Records as Celery 5.7.0 stores them: ours are the same, byte by byte but for times and tracebacks."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from celery import Celery
from celery.protocol.result import exception_from_record
from celery.result import result_from_tuple

FACTS = Path(__file__).resolve().parents[2] / "facts" / "messages"
TIME = "2026-11-20T09:49:27.968880+00:00"


def scenarios(*prefixes):
    found = [json.loads(path.read_text()) for prefix in prefixes for path in sorted(FACTS.glob(f"{prefix}_*.json"))]
    assert found, "no recorded messages"
    return found


def recorded_metas():
    for scenario in scenarios("w", "wx"):
        values = [(entry["key"], entry["value"]) for entry in scenario["redis_keys"]]
        values += [(entry["channel"], entry["data"]) for entry in scenario["redis_published"]]
        for number, (key, value) in enumerate(values):
            if key.startswith("celery-task-meta-"):
                yield pytest.param(value["$json"], id=f"{scenario['scenario']}-{number}")


@pytest.fixture
def app():
    app = Celery("golden", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


def request_for(meta, app):
    """The request of a worker that would have led to this record."""
    children = [result_from_tuple(child, app) for child in meta["children"] or ()]
    fields = {
        "id": meta["task_id"],
        "group": meta.get("group_id"),
        "parent_id": meta.get("parent_id"),
        "children": children,
        "task": meta.get("name"),
        "args": meta.get("args"),
        "kwargs": meta.get("kwargs"),
        "hostname": meta.get("worker"),
        "retries": meta.get("retries", 0),
        "delivery_info": {"routing_key": meta.get("queue")},
        "stamps": None,
        "stamped_headers": None,
        "ignore_result": False,
        "chord": None,
        "chain": None,
        "errbacks": None,
        "correlation_id": meta["task_id"],
    }
    return SimpleNamespace(**fields)


def outcome_of(meta):
    if meta["status"] in ("FAILURE", "REVOKED", "RETRY"):
        return exception_from_record(meta["result"])
    return meta["result"]


def masked(meta):
    return {**meta, "date_done": meta["date_done"] and TIME}


@pytest.mark.parametrize("meta", list(recorded_metas()))
def test_a_record_is_stored_as_recorded(meta, app):
    app.conf.result_extended = "worker" in meta
    backend = app.backend
    request = None if meta["children"] is None else request_for(meta, app)
    result = outcome_of(meta)
    name = type(result).__module__
    if meta["status"] in ("FAILURE", "REVOKED", "RETRY") and name != meta["result"]["exc_module"]:
        type(result).__module__ = meta["result"]["exc_module"]  # a class of the recorded program
    backend.delete(backend.get_key_for_task(meta["task_id"]))
    backend.store_result(meta["task_id"], result, meta["status"], traceback=meta["traceback"], request=request)
    stored = json.loads(backend.get(backend.get_key_for_task(meta["task_id"])))

    assert masked(stored) == masked(meta)
    assert list(stored) == list(meta)
    assert backend.encode(masked(stored)) == json.dumps(masked(meta))


@pytest.mark.parametrize("meta", list(recorded_metas()))
def test_a_recorded_record_is_read(meta, app):
    backend = app.backend
    text = json.dumps(meta).replace("<YYYY-MM-DDTHH:MM:SS.ffffff+00:00>", TIME)
    backend.set(backend.get_key_for_task(meta["task_id"]), text)
    result = app.AsyncResult(meta["task_id"])

    assert result.state == meta["status"]
    if meta["status"] in ("FAILURE", "REVOKED"):
        with pytest.raises(BaseException) as caught:
            result.get(timeout=1)
        assert type(caught.value).__name__ == meta["result"]["exc_type"]
    elif meta["status"] == "SUCCESS":
        assert result.get(timeout=1) == meta["result"]
        assert [child.as_tuple() for child in result.children or ()] == [
            result_from_tuple(child, app).as_tuple() for child in meta["children"] or ()
        ]


def recorded_messages():
    for scenario in scenarios("rpc"):
        for number, message in enumerate(scenario["messages"]):
            if message["body"].__class__ is dict and "status" in message["body"]:
                yield pytest.param(message, id=f"{scenario['scenario']}-{number}")


@pytest.mark.parametrize("message", list(recorded_messages()))
def test_a_record_is_sent_as_recorded(message):
    app = Celery("golden", broker="memory://", backend="rpc://", set_as_current=False)
    meta = message["body"]
    request = request_for(meta, app)
    request.reply_to = message["routing_key"]
    result = outcome_of(meta)
    with app.connection() as connection:
        queue = app.backend._create_binding(message["routing_key"])(connection.default_channel)
        queue.declare()
        app.backend.store_result(meta["task_id"], result, meta["status"], traceback=meta["traceback"], request=request)
        sent = queue.get(no_ack=True)
        properties = {name: value for name, value in sent.properties.items() if name in message["properties"]}
        properties.update(content_type=sent.content_type, content_encoding=sent.content_encoding)

        # ``priority`` is what each transport makes of none
        assert masked(sent.decode()) == masked(meta)
        assert {name: value for name, value in properties.items() if name != "priority"} == {
            name: value for name, value in message["properties"].items() if name != "priority"
        }
        assert queue.queue_arguments is None
        assert (queue.durable, queue.auto_delete, queue.exclusive, queue.expires) == (True, True, False, 86400)
    app.backend.result_consumer.stop()
    app.close()


def recorded_rows():
    for scenario in scenarios("db", "dbx"):
        for number, row in enumerate(scenario["rows"]["celery_taskmeta"]):
            yield pytest.param(
                row, bool(scenario["settings"].get("result_extended")), id=f"{scenario['scenario']}-{number}"
            )


def literal(column):
    return eval(column) if column is not None else None


@pytest.mark.parametrize(("row", "extended"), list(recorded_rows()))
def test_a_row_is_stored_as_recorded(row, extended, tmp_path):
    app = Celery("golden", broker="memory://", backend=f"db+sqlite:///{tmp_path}/r.db", set_as_current=False)
    app.conf.result_extended = extended
    value = json.loads(literal(row["result"]))
    meta = {
        "task_id": row["task_id"],
        "status": row["status"],
        "result": value,
        "children": [],
        "name": row["name"],
        "args": row["args"] and json.loads(literal(row["args"])),
        "kwargs": row["kwargs"] and json.loads(literal(row["kwargs"])),
        "worker": row["worker"],
        "retries": row["retries"],
        "queue": row["queue"],
    }
    backend = app.backend
    backend.store_result(
        row["task_id"], outcome_of(meta), row["status"], traceback=row["traceback"], request=request_for(meta, app)
    )
    with sqlite3.connect(f"{tmp_path}/r.db") as database:
        database.row_factory = sqlite3.Row
        stored = dict(database.execute("select * from celery_taskmeta").fetchone())
    database.close()
    backend.session_manager.invalidate(backend.url)
    app.close()
    expected = {**row, "id": 1}
    for name in ("result", "args", "kwargs", "children", "stamps"):
        expected[name] = literal(row[name])
    assert (stored.pop("date_done") is None) == (expected.pop("date_done") is None)
    assert stored == expected


def test_tables_are_as_recorded(tmp_path):
    app = Celery("golden", broker="memory://", backend=f"db+sqlite:///{tmp_path}/r.db", set_as_current=False)
    backend = app.backend
    with sqlite3.connect(f"{tmp_path}/r.db") as database:
        statements = dict(database.execute("select name, sql from sqlite_master where sql is not null"))
    database.close()
    backend.session_manager.invalidate(backend.url)
    app.close()

    assert " ".join(statements["celery_taskmeta"].split()) == (
        "CREATE TABLE celery_taskmeta ( id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, task_id VARCHAR(155), "
        "status VARCHAR(50), result BLOB, date_done DATETIME, traceback TEXT, children BLOB, name VARCHAR(155), "
        "args BLOB, kwargs BLOB, worker VARCHAR(155), retries INTEGER, queue VARCHAR(155), stamps BLOB, UNIQUE (task_id) )"
    )
    assert " ".join(statements["celery_tasksetmeta"].split()) == (
        "CREATE TABLE celery_tasksetmeta ( id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, taskset_id VARCHAR(155), "
        "result BLOB, date_done DATETIME, UNIQUE (taskset_id) )"
    )
    assert "ix_celery_taskmeta_date_done" in statements
    assert "ix_celery_tasksetmeta_date_done" in statements
