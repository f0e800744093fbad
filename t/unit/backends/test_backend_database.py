"""Results in a database."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from celery import Celery
from celery.backends.database import models, session_cleanup
from celery.backends.database.session import SessionManager
from celery.exceptions import ImproperlyConfigured


@pytest.fixture
def make(tmp_path):
    made = []

    def make(**conf):
        app = Celery("database", broker="memory://", backend=f"db+sqlite:///{tmp_path}/r.db", set_as_current=False)
        app.conf.update(conf)
        made.append(app)
        return app.backend

    yield make
    for app in made:
        app.backend.session_manager.invalidate(app.backend.url)
        app.close()
    models.Task.configure(name="celery_taskmeta")
    models.TaskSet.configure(name="celery_tasksetmeta")


def test_a_connection_string_is_needed():
    app = Celery("database", broker="memory://", backend="database", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="database_url"):
        app.backend
    app.conf.database_url = "sqlite://"
    assert app.backend.url == "sqlite://"
    app.backend.session_manager.invalidate("sqlite://")
    app.close()


def test_the_password_is_masked(make):
    backend = make()
    backend.url, url = "postgresql://u:secret@h/db", backend.url

    assert "secret" not in backend.as_uri()
    backend.url = url


def test_tables_have_the_names_of_the_settings(make):
    backend = make(database_table_names={"task": "my_tasks", "group": "my_groups"})
    backend.store_result("t", 1, "SUCCESS")

    assert backend.task_cls.__table__.name == "my_tasks"
    assert backend.taskset_cls.__table__.name == "my_groups"
    with backend.session_manager.get_engine(backend.url).connect() as connection:
        assert connection.exec_driver_sql("select count(*) from my_tasks").scalar() == 1


def test_a_schema_is_set_on_table_and_sequence():
    models.Task.configure(schema="s", name="n")
    table = models.Task.__table__

    assert (table.schema, table.name, table.c.id.default.schema) == ("s", "n", "s")
    models.Task.configure(name="celery_taskmeta")
    assert (table.schema, table.name, table.c.id.default.schema) == (None, "celery_taskmeta", None)


def test_engine_options_and_callback_reach_the_engine(make):
    seen = []
    backend = make(database_engine_options={"echo": False, "pool_size": 3}, database_engine_callback=seen.append)
    engine = backend.session_manager.get_engine(backend.url)

    assert seen == [engine]
    assert engine.pool.size() == 3


def test_short_lived_sessions_keep_no_connection(make):
    backend = make(database_short_lived_sessions=True)
    backend.store_result("t", 1, "SUCCESS")
    session = backend.ResultSession()

    assert isinstance(session.get_bind().pool, NullPool)
    session.close()


def test_tables_may_be_left_for_later(make):
    backend = make(database_create_tables_at_setup=False)
    assert not backend.session_manager.prepared
    backend.store_result("t", 1, "SUCCESS")

    assert backend.session_manager.prepared


def test_many_that_create_tables_at_once_do_not_disturb_each_other(tmp_path):
    program = (
        "import sys; from celery.backends.database.session import SessionManager; "
        "import celery.backends.database.models; "
        f"SessionManager().session_factory('sqlite:///{tmp_path}/race.db').close()"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, env={**os.environ}) for _ in range(3)
    ]

    assert [child.communicate()[1].decode()[-500:] for child in children] == ["", "", ""]


def test_two_that_insert_the_same_row_both_succeed(make):
    backend = make()
    failures = []

    def write(number):
        try:
            for round in range(10):
                backend.store_result(f"t{round}", number, "STARTED")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert {backend.get_state(f"t{round}") for round in range(10)} == {"STARTED"}


def test_a_lost_connection_is_left_and_the_write_done_again(make):
    backend = make()
    errors = [OperationalError("s", {}, Exception("gone"))]
    session = backend.ResultSession
    invalidated = []
    invalidate = backend.session_manager.invalidate
    backend.session_manager.invalidate = lambda url: invalidated.append(url) or invalidate(url)

    def failing(*args):
        if errors:
            raise errors.pop()
        return session(*args)

    backend.ResultSession = failing
    backend._sleep = lambda seconds: None
    backend.store_result("t", 1, "SUCCESS")

    assert backend.get_state("t") == "SUCCESS"
    assert invalidated == [backend.url]


def test_an_error_that_stays_is_raised_after_three_tries(make):
    backend = make()
    tries = []

    def failing(*args):
        tries.append(1)
        raise IntegrityError("s", {}, Exception("no"))

    backend.ResultSession = failing
    backend._sleep = lambda seconds: None
    with pytest.raises(Exception, match="task t") as caught:
        backend.store_result("t", 1, "SUCCESS")

    assert isinstance(caught.value.__cause__, IntegrityError)
    assert len(tries) == 4


def test_a_session_is_undone_and_closed_on_error(make):
    backend = make()
    session = backend.ResultSession()
    with pytest.raises(ZeroDivisionError), session_cleanup(session):
        session.add(backend.task_cls("t"))
        1 / 0

    assert not backend.task_result_exists("t")


def test_cleanup_deletes_the_old_rows(make):
    backend = make(result_expires=100)
    backend.store_result("old", 1, "SUCCESS")
    backend.store_result("new", 1, "SUCCESS")
    with session_cleanup(session := backend.ResultSession()):
        row = session.query(backend.task_cls).filter_by(task_id="old").one()
        row.date_done = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(seconds=200)
        session.commit()
    backend.cleanup()

    assert not backend.task_result_exists("old")
    assert backend.task_result_exists("new")


def test_many_records_are_read_with_few_queries(make):
    backend = make()
    for number in range(20):
        backend.store_result(f"t{number}", number, "SUCCESS")
    opened = []
    session = backend.ResultSession
    backend.ResultSession = lambda *args: opened.append(1) or session(*args)
    metas = backend.get_task_metas([f"t{number}" for number in range(25)])

    assert {task_id: meta["result"] for task_id, meta in metas.items()} == {f"t{n}": n for n in range(20)}
    assert len(opened) == 1


def test_rows_describe_themselves(make):
    backend = make()
    backend.store_result("t", 1, "SUCCESS")
    with session_cleanup(session := backend.ResultSession()):
        row = session.query(backend.task_cls).one()
        assert repr(row) == "<Task t state: SUCCESS>"
        assert row.to_dict()["result"] == b"1"
    assert repr(models.TaskSet("g", b"")) == "<TaskSet: g>"
    assert models.TaskExtended("x").to_dict()["stamps"] is None


def test_a_manager_keeps_one_engine_for_each_url():
    manager = SessionManager()
    one = manager.get_engine("sqlite://")

    assert manager.get_engine("sqlite://") is one
    manager.invalidate("sqlite://")
    assert manager.get_engine("sqlite://") is not one
    manager.invalidate("sqlite://")
