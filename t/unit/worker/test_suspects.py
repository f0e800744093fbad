"""Which of the messages that were delivered before run at what time."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace

import pytest

from celery import Celery
from celery.transports.message import is_lost_too_often
from celery.worker.consumer import suspects


class Hub:
    def __init__(self) -> None:
        self.calls: list = []
        self.later: list = []

    def call_soon(self, function, *args):
        self.calls.append((function, args))

    def call_later(self, seconds, function, *args):
        self.later.append((seconds, function, args))

    def turn(self) -> None:
        while self.calls:
            function, args = self.calls.pop(0)
            function(*args)


class Message:
    def __init__(self, losses: int) -> None:
        self.redelivery_count = losses
        self.recorded = 0
        self.has_started = False
        self.fails_with: Exception | None = None

    def record_start(self) -> None:
        self.has_started = True
        if self.fails_with is not None:
            raise self.fails_with
        self.recorded += 1

    def unstart(self) -> None:
        self.has_started = False


class Request:
    on_over = before_start = None

    def __init__(self, id: str, losses: int) -> None:
        self.id = id
        self.message = Message(losses)

    def end(self) -> None:
        self.on_over(self)

    def humaninfo(self) -> str:
        return self.id


class House:
    """What the suspects need of a consumer; it notes what is run."""

    class conninfo:
        class transport:
            driver_type = "redis"

    connection_errors = (ConnectionError,)

    def __init__(self, app) -> None:
        self.app = app
        self.hub = Hub()
        self.ran: list[str] = []
        self.pool = type("Pool", (), {"submit": None})()

    def on_task_request(self, request) -> None:
        self.ran.append(request.id)


@pytest.fixture
def house(app):
    house = House(app)
    house.suspects = suspects.Suspects(house)
    return house


def send(house, *requests):
    for request in requests:
        house.suspects.add(request)
    house.hub.turn()


def test_what_was_delivered_before_but_not_lost_in_its_run_runs_with_others(house):
    send(house, *[Request(id, 0) for id in "abc"])
    assert house.ran == ["a", "b", "c"]


def test_what_was_lost_in_its_run_runs_beside_none_of_them(house):
    unknown, first, second, last = Request("unknown", 0), Request("first", 1), Request("second", 2), Request("last", 0)
    send(house, unknown, first, second, last)
    assert house.ran == ["unknown"]
    for request, ran in ((unknown, "first"), (first, "second"), (second, "last")):
        request.end()
        house.hub.turn()
        assert house.ran[-1] == ran
    last.end()
    house.hub.turn()
    assert house.ran == ["unknown", "first", "second", "last"]


class Books:
    """A ledger that only notes what it is told, and a channel whose answers wait."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def count(self, request) -> int:
        return 2

    def add(self, request, losses) -> int:
        self.notes.append(f"count {request.id}")
        return losses

    def forget(self, request) -> None:
        self.notes.append(f"forget {request.id}")

    def settle_quietly(self) -> None:
        self.notes.append("answer")


def test_the_next_one_begins_when_the_last_is_answered_for_and_not_counted_any_more(house):
    books = house.suspects._ledger = Books()
    innocent, guilty = Request("innocent", 0), Request("guilty", 0)
    for request in (innocent, guilty):
        request.message.channel = books
        request.is_lost = False
    house.on_task_request = lambda request: (request.before_start(), books.notes.append(f"run {request.id}"))
    send(house, innocent, guilty)
    books.notes.clear()
    innocent.end()
    house.hub.calls.reverse()  # kombu calls in no order
    house.hub.turn()

    assert books.notes == ["answer", "forget innocent", "answer", "count guilty", "run guilty"]


def test_nobody_waits_for_longer_than_a_minute(house):
    send(house, Request("long", 1), Request("waits", 1))
    assert house.ran == ["long"]
    ((seconds, leave, args),) = house.hub.later
    leave(*args)

    assert seconds == suspects.LONGEST_QUARANTINE == 60
    assert house.ran == ["long", "waits"]


def test_the_start_is_put_on_record_once_and_when_it_is_about_to_happen(house):
    request = Request("a", 0)
    send(house, request)
    assert request.message.recorded == 0
    request.before_start()

    assert request.message.recorded == 1
    assert request.before_start is None


@pytest.fixture
def ready(monkeypatch):
    """The ids of requests that the worker has nothing to do with any more."""
    ids: list[str] = []
    monkeypatch.setattr(suspects.state, "task_ready", lambda request: ids.append(request.id))
    return ids


def test_what_starts_while_the_connection_is_lost_is_the_brokers_again(house, ready):
    request = Request("a", 0)
    request.message.fails_with = ConnectionError("gone")
    send(house, request)

    assert request.before_start() is False
    assert not request.message.has_started
    assert ready == ["a"]


def test_what_starts_runs_also_if_the_broker_refuses_the_record(house, ready, caplog):
    request = Request("a", 0)
    request.message.fails_with = ValueError("out of memory")
    send(house, request)

    assert request.before_start() is True
    assert ready == []
    assert "without a record of its start" in caplog.text


def test_messages_of_transports_that_count_nothing_run_at_once(house):
    request = Request("a", 0)
    del request.message.redelivery_count
    house.suspects.add(request)
    assert house.ran == ["a"]


def test_what_waits_is_the_brokers_again_when_the_connection_is_lost(house, ready):
    requests = [Request("runs", 1), Request("waits", 1)]
    send(house, *requests)
    house.suspects.add(Request("unseen", 0))
    house.suspects.clear()
    requests[0].end()
    house.hub.turn()

    assert ready == ["unseen", "waits"]
    assert house.ran == ["runs"]


@pytest.mark.parametrize(
    ("started", "losses", "is_too_often"),
    [
        (3, 3, True),
        (2, 3, True),  # the first came before anybody could note the start
        (2, 4, False),  # innocent at least once
        (2, 2, False),
        (0, 3, False),
        (0, 29, False),
        (0, 30, True),
    ],
)
def test_when_a_message_has_been_lost_too_often(started, losses, is_too_often):
    assert is_lost_too_often(started, losses, most=3) is is_too_often


def test_a_message_that_may_be_lost_once_is_not_set_aside_for_waiting():
    assert not is_lost_too_often(0, 1, most=1)
    assert is_lost_too_often(1, 1, most=1)


# -- counting at RabbitMQ


@pytest.fixture
def silent_broker():
    """A server that takes connections and says nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    yield server
    server.close()


@pytest.fixture
def ledger(silent_broker):
    url = f"amqp://guest:guest@127.0.0.1:{silent_broker.getsockname()[1]}//"
    app = Celery("silent", broker=url, broker_connection_timeout=0.2, set_as_current=False)
    yield suspects.Ledger(app)
    app.close()


def lost():
    return SimpleNamespace(id="id", request_dict={"id": "id", "retries": 0})


def connections_to(server):
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except TimeoutError:
            return count
        count += 1


def test_a_broker_that_says_nothing_is_asked_once(ledger, silent_broker, caplog):
    began = time.monotonic()
    assert ledger.count(lost()) == 0
    assert ledger.add(lost(), 1) == 0

    assert time.monotonic() - began < 2  # kombu rests for so long before it connects again
    assert connections_to(silent_broker) == 1
    assert "cannot be counted for 30 s" in caplog.text


def test_after_an_answer_that_did_not_come_no_other_connection_is_opened(ledger, silent_broker, caplog):
    def does_not_answer(**arguments):
        raise TimeoutError("timed out")

    ledger._channel = SimpleNamespace(queue_delete=does_not_answer)
    ledger.forget(lost())

    assert connections_to(silent_broker) == 0
    assert "cannot be counted for 30 s" in caplog.text
