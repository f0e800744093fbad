"""Which tasks may outlast the broker's patience."""

from __future__ import annotations

from celery import Celery
from celery.worker.consumer.consumer_timeout import tasks_over_timeout


def app_with_tasks():
    app = Celery("patience", set_as_current=False, broker="memory://")

    @app.task(name="late.long", acks_late=True, time_limit=3600)
    def long():
        pass

    @app.task(name="late.short", acks_late=True, time_limit=60)
    def short():
        pass

    @app.task(name="late.unlimited", acks_late=True)
    def unlimited():
        pass

    @app.task(name="early.long", time_limit=3600)
    def early():
        pass

    app.finalize()
    return app


def test_only_late_tasks_with_a_limit_above_the_timeout_are_named():
    assert tasks_over_timeout(app_with_tasks().tasks.values(), 1800.0) == ["late.long"]


def test_the_setting_is_the_limit_of_tasks_without_one():
    assert tasks_over_timeout(app_with_tasks().tasks.values(), 1800.0, 7200) == ["late.long", "late.unlimited"]


def test_a_shorter_timeout_names_more():
    assert tasks_over_timeout(app_with_tasks().tasks.values(), 30.0) == ["late.long", "late.short"]
