"""The exchange of events is what the transport can do: receivers on Redis listen to a channel."""

from __future__ import annotations

import pytest

from celery import Celery
from celery.events import get_exchange


@pytest.mark.parametrize(("broker", "kind"), [("redis://", "fanout"), ("memory://", "topic"), ("amqp://", "topic")])
def test_a_client_sends_its_events_where_receivers_listen(broker, kind):
    app = Celery("events", broker=broker, set_as_current=False)

    assert app.amqp._event_dispatcher.exchange.type == kind
    assert get_exchange(app.connection_for_read()).type == kind
    app.close()


def test_the_exchange_has_the_configured_name():
    app = Celery("events", broker="memory://", set_as_current=False)
    app.conf.event_exchange = "ev2"

    assert app.amqp._event_dispatcher.exchange.name == "ev2"
    app.close()
