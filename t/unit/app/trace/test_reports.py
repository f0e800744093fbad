"""What is logged of a task's end."""

import logging

import pytest

from celery import Celery


@pytest.fixture
def app():
    app = Celery("reports", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_always_eager = True
    yield app
    app.close()


def test_a_success_without_a_message_is_logged_with_its_arguments(app, caplog):
    @app.task(name="reports.double", shared=False)
    def double(number):
        return 2 * number

    with caplog.at_level(logging.INFO, logger="celery.app.trace"):
        result = double.delay(21)

    assert result.get() == 42
    (record,) = [record for record in caplog.records if "succeeded" in record.message]
    assert record.message.startswith(f"Task reports.double[{result.id}] succeeded in ")
    assert record.message.endswith("s: 42")
    assert record.data["args"] == "[21]"  # as a message would bring them
    assert record.data["kwargs"] == "{}"
