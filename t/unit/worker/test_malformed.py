"""Messages that are no task messages: none ends the worker, none comes back, each is kept with the reason."""

from __future__ import annotations

import pytest

from celery import signals
from celery.transports.dead_letters import DEAD_LETTER_QUEUE, REASON

GOOD = {"lang": "py", "task": "note", "id": "id-1", "retries": 0, "argsrepr": "()", "kwargsrepr": "{}"}
BODY = '[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'

#: name → (body, what differs from a good message)
BAD = {
    "no task at all": ('{"hello": 1}', {"headers": {}}),
    "text": ("garbage", {"headers": {}, "content_type": "text/plain"}),
    "nothing": ("", {"headers": {}}),
    "no id": (BODY, {"headers": {"task": "note"}}),
    "id is a number": (BODY, {"headers": {**GOOD, "id": 5}}),
    "task is a list": (BODY, {"headers": {**GOOD, "task": ["note"]}}),
    "task is unknown": (BODY, {"headers": {**GOOD, "task": "nobody.knows"}}),
    "eta is no date": (BODY, {"headers": {**GOOD, "eta": "tomorrow"}}),
    "expires is a mapping": (BODY, {"headers": {**GOOD, "expires": {}}}),
    "limits are text": (BODY, {"headers": {**GOOD, "timelimit": "soon"}}),
    "limits of a member are a number": (BODY, {"headers": {**GOOD, "timelimit": 5.5, "group": "g-1"}}),
    "limits of a member are one": (BODY, {"headers": {**GOOD, "timelimit": [1], "group": "g-1", "group_index": {}}}),
    "retries are text": (BODY, {"headers": {**GOOD, "retries": "many"}}),
    "stamps are a list": (BODY, {"headers": {**GOOD, "stamps": [1], "stamped_headers": ["a"]}}),
    "pickle": (b"\x80\x04N.", {"headers": GOOD, "content_type": "application/x-python-serialize"}),
    "body is no JSON": ("{", {"headers": GOOD}),
    "body is a number": ("5", {"headers": GOOD}),
    "body has two parts": ("[[], {}]", {"headers": GOOD}),
    "kwargs are a list": ("[[], [], {}]", {"headers": GOOD}),
    "not UTF-8": (b"\xff\xfe", {"headers": GOOD}),
    "unknown compression": (BODY, {"headers": {**GOOD, "compression": "application/x-nothing"}}),
    "a body that cannot even be shown": (BODY, {"headers": {**GOOD, "eta": "soon", "compression": "gzip"}}),
    "version 1 without id": ('{"task": "note", "args": []}', {"headers": {}}),
    "version 1, kwargs a list": ('{"task": "note", "id": "1", "kwargs": []}', {"headers": {}}),
}


@pytest.fixture
def ran(app):
    ran = []
    app.task(shared=False, name="note")(lambda: ran.append(1))
    app.finalize()
    return ran


def send(app, body, headers, content_type="application/json"):
    with app.producer_or_acquire() as producer:
        producer.publish(
            body,
            routing_key=app.conf.task_default_queue,
            headers=headers,
            content_type=content_type,
            content_encoding="binary" if isinstance(body, bytes) else "utf-8",
            declare=[app.amqp.queues[app.conf.task_default_queue]],
        )


def dead_letters(app):
    """Take what was set aside: (reason, body as sent) of each."""
    found = []
    with app.connection_for_read() as connection:
        channel = connection.channel()
        channel.queue_declare(DEAD_LETTER_QUEUE, durable=True)
        while message := channel.basic_get(DEAD_LETTER_QUEUE, no_ack=True):
            found.append((message.headers[REASON], message.body))
    return found


@pytest.mark.parametrize("name", list(BAD))
def test_it_is_set_aside_with_a_reason(app, running, wait_until, ran, name, caplog):
    body, properties = BAD[name]
    found = []
    with running(pool="solo"):
        send(app, body, **properties)
        wait_until(lambda: found.extend(dead_letters(app)) or found)
        # The worker goes on.
        send(app, BODY, {**GOOD, "id": "good"})
        wait_until(lambda: ran)

    assert len(found) == 1
    reason, kept = found[0]
    assert reason
    assert bytes(kept if isinstance(kept, bytes) else kept.encode()) == (
        body if isinstance(body, bytes) else body.encode()
    )
    assert ran == [1]
    assert "could not be sorted out" not in caplog.text


def test_an_unknown_task_is_stored_as_failed(app, running, wait_until):
    with running(pool="solo"):
        result = app.send_task("nobody.knows")
        wait_until(lambda: result.state == "FAILURE")

    assert type(result.result).__name__ == "NotRegistered"


def test_signals_tell_of_unknown_and_invalid_messages(app, running, wait_until, ran):
    seen = []

    def on_unknown(sender, message, exc, name, id, **kwargs):
        seen.append(("unknown", name, id))

    def on_rejected(sender, message, exc, **kwargs):
        seen.append(("rejected", exc is None))

    signals.task_unknown.connect(on_unknown)
    signals.task_rejected.connect(on_rejected)
    try:
        with running(pool="solo"):
            send(app, BODY, {**GOOD, "task": "nobody.knows"})
            send(app, '{"hello": 1}', {})
            send(app, BODY, {**GOOD, "eta": "tomorrow"})
            wait_until(lambda: len(seen) == 3)
    finally:
        signals.task_unknown.disconnect(on_unknown)
        signals.task_rejected.disconnect(on_rejected)

    assert seen == [("unknown", "nobody.knows", "id-1"), ("rejected", True), ("rejected", False)]
