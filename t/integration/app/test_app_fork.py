"""Forking after connecting: each process gets a connection of its own, and the parent's goes on."""

from __future__ import annotations

import gc
import os
import uuid

import pytest

from celery import Celery

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def app():
    url = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
    with Celery("fork", broker=url, set_as_current=False, fixups=[]) as app:
        app.conf.broker_transport_options = {"confirm_publish": True}
        try:
            app.connection_for_write().ensure_connection(max_retries=1, timeout=2).release()
        except Exception as error:
            pytest.skip(f"no RabbitMQ: {error}")
        yield app


def test_parent_and_child_publish_side_by_side(app):
    queue = f"test-fork-{uuid.uuid4()}"

    @app.task(shared=False, ignore_result=True)
    def note():
        pass

    note.apply_async(queue=queue)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            note.apply_async(queue=queue)
            gc.collect()
            app._pool = None
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    note.apply_async(queue=queue)

    with app.connection_or_acquire() as connection:
        declared = connection.default_channel.queue_declare(queue, passive=True)
        connection.default_channel.queue_delete(queue)
    assert os.waitstatus_to_exitcode(status) == 0
    assert declared.message_count == 3
