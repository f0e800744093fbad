"""Sending, receiving, printing and photographing events, over a broker in memory."""

from __future__ import annotations

import io
import socket
import uuid

import pytest

from celery import Celery
from celery.events import Event, get_exchange, group_from
from celery.events.dumper import Dumper, humanize_type
from celery.events.snapshot import Polaroid
from celery.exceptions import ImproperlyConfigured


@pytest.fixture
def app():
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.update(event_exchange=f"ev-{uuid.uuid4().hex}", broker_transport_options={"polling_interval": 0.001})
    yield app
    app.close()


@pytest.fixture
def received(app):
    """``received(send)``: the events that come in while ``send(dispatcher options)`` works."""

    def capture(send, limit, routing_key="#", **options):
        seen = []
        with app.connection() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": seen.append}, routing_key=routing_key)
            with receiver.consumer_context(wakeup=False) as (consuming, _, _):
                with app.events.Dispatcher(connection, hostname="me@here", **options) as dispatcher:
                    send(dispatcher)
                for _ in range(limit):
                    consuming.drain_events(timeout=5)
        return seen

    return capture


def test_an_event_carries_its_type_and_time():
    assert Event("task-sent", uuid="x", __now__=lambda: 5.0) == {"type": "task-sent", "uuid": "x", "timestamp": 5.0}
    assert Event("a", {"timestamp": 1, "b": 2}, c=3) == {"type": "a", "timestamp": 1, "b": 2, "c": 3}
    assert group_from("task-sent") == "task"


def test_what_is_sent_is_received_with_its_sender(received):
    (event,) = received(lambda dispatcher: dispatcher.send("worker-heartbeat", freq=2), 1)

    assert event["type"] == "worker-heartbeat"
    assert (event["hostname"], event["freq"]) == ("me@here", 2)
    assert {"timestamp", "local_received", "clock", "pid", "utcoffset"} <= set(event)


def test_groups_are_sent_as_one_message(received):
    def send(dispatcher):
        for number in range(3):
            dispatcher.send("task-started", uuid=str(number))
        dispatcher.flush()

    # three events are two messages, for the buffer holds two
    events = received(send, 2, buffer_group={"task"}, buffer_limit=2)
    assert [event["uuid"] for event in events] == ["0", "1", "2"]


def test_a_receiver_gets_what_it_asked_for(received):
    def send(dispatcher):
        dispatcher.send("worker-heartbeat")
        dispatcher.send("task-started", uuid="1")

    assert [event["type"] for event in received(send, 1, routing_key="task.#")] == ["task-started"]


def test_a_dispatcher_can_be_limited_to_groups_and_switched_off(received):
    def send(dispatcher):
        dispatcher.send("task-started", uuid="0")
        dispatcher.send("worker-heartbeat")
        dispatcher.disable()
        dispatcher.send("worker-offline")
        dispatcher.enable()
        dispatcher.send("worker-online")

    assert [event["type"] for event in received(send, 2, groups=["worker"])] == ["worker-heartbeat", "worker-online"]


def test_events_wait_while_the_broker_is_away(app):
    sent = []

    class Producer:
        away = True

        def publish(self, event, **options):
            if self.away:
                raise OSError("gone")
            sent.append(event["number"])

    with app.connection() as connection:
        old = app.events.Dispatcher(connection)
        old.producer = Producer()
        for number in range(3):
            old.send("task-x", number=number, uuid="u")
        new = app.events.Dispatcher(connection)
        new.producer = Producer()
        new.extend_buffer(old)
        with pytest.raises(OSError, match="gone"):
            new.flush()
        Producer.away = False
        new.flush()
        new.flush()

    assert sent == [0, 1, 2]


def test_an_event_that_must_not_wait_raises(app):
    class Producer:
        def publish(self, event, **options):
            raise OSError("gone")

    with app.connection() as connection:
        dispatcher = app.events.Dispatcher(connection, buffer_while_offline=False)
        dispatcher.producer = Producer()
        with pytest.raises(OSError, match="gone"):
            dispatcher.send("task-x")


def test_capture_ends_when_nothing_comes(app):
    with app.connection() as connection:
        receiver = app.events.Receiver(connection)
        with pytest.raises(socket.timeout):
            receiver.capture(limit=1, timeout=0.01, wakeup=False)


def test_clients_events_come_just_before_what_the_clock_says(app):
    with app.connection() as connection:
        receiver = app.events.Receiver(connection)
        receiver.adjust_clock(100)
        _, sent = receiver.event_from_message({"type": "task-sent"}, now=lambda: 1.0)
        _, other = receiver.event_from_message({"type": "task-x", "clock": 500, "timestamp": 10.0, "utcoffset": 0})

    assert sent["clock"] == receiver.clock.value - 1 or sent["clock"] < other["clock"]
    assert sent["local_received"] == 1.0
    assert receiver.clock.value > 500


def test_queues_of_receivers_cannot_be_exclusive_and_durable(app):
    with app.connection() as connection, pytest.raises(ImproperlyConfigured, match="cannot both be set"):
        app.events.Receiver(connection, queue_exclusive=True, queue_durable=True)


def test_events_travel_by_fanout_on_redis_and_by_topic_elsewhere(app):
    with app.connection() as connection:
        assert get_exchange(connection).type == "topic"
    with Celery(broker="redis://", set_as_current=False).connection() as connection:
        assert (get_exchange(connection, name="x").type, get_exchange(connection, name="x").name) == ("fanout", "x")


# -- printing


def test_a_task_is_described_by_its_first_event_in_all_its_lines():
    out = io.StringIO()
    dumper = Dumper(out)
    common = {"uuid": "id1", "hostname": "w@here", "timestamp": 0.5}
    dumper.on_event({"type": "task-received", **common, "name": "add", "args": "(1,)", "kwargs": "{}", "eta": None})
    dumper.on_event({"type": "task-succeeded", **common, "result": "3"})
    dumper.on_event({"type": "worker-online", "hostname": "w@here", "timestamp": 0.5, "freq": 2, "active": 0})

    assert out.getvalue().splitlines() == [
        "w@here [1970-01-01 00:00:00.500000+00:00] task received: add(id1) args=(1,) kwargs={} eta=None",
        "w@here [1970-01-01 00:00:00.500000+00:00] task succeeded: add(id1) args=(1,) kwargs={} result=3",
        "w@here [1970-01-01 00:00:00.500000+00:00] started: active=0, freq=2",
    ]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("worker-offline", "shutdown"), ("worker-heartbeat", "heartbeat"), ("Task-Sent", "task sent")],
)
def test_types_are_read_as_words(kind, words):
    assert humanize_type(kind) == words


# -- photographing


class Timer:
    """A timer that we turn by hand."""

    def __init__(self):
        self.entries = []

    def call_repeatedly(self, seconds, fun):
        entry = Entry(seconds, fun)
        self.entries.append(entry)
        return entry


class Entry:
    is_canceled = False

    def __init__(self, seconds, fun):
        self.seconds = seconds
        self.fun = fun

    def cancel(self):
        self.is_canceled = True


class Camera(Polaroid):
    clear_after = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pictures = []
        self.cleanups = 0

    def on_shutter(self, state):
        self.pictures.append(len(state.tasks))

    def on_cleanup(self):
        self.cleanups += 1


def test_a_camera_takes_a_picture_at_each_tick_and_forgets_what_has_ended(app):
    state, timer = app.events.State(), Timer()
    state.event({"type": "task-succeeded", "uuid": "1", "hostname": "w", "timestamp": 1.0, "clock": 1, "pid": 1})
    seen = []

    def on_shutter(sender, **kwargs):
        seen.append(sender)

    Camera.shutter_signal.connect(on_shutter, sender=state)
    with Camera(state, freq=3, cleanup_freq=9, timer=timer, app=app) as camera:
        assert [entry.seconds for entry in timer.entries] == [3, 9]
        for _ in range(2):
            timer.entries[0].fun()
        timer.entries[1].fun()

    assert camera.pictures == [1, 0]
    assert camera.cleanups == 1
    assert seen == [state, state]
    assert all(entry.is_canceled for entry in timer.entries)


def test_a_camera_takes_no_more_pictures_than_allowed(app):
    camera = Camera(app.events.State(), maxrate="1/m", timer=Timer(), app=app)
    for _ in range(5):
        camera.capture()

    assert camera.pictures == [0]
