"""Tasks that are moved from queue to queue and from broker to broker, in memory."""

from __future__ import annotations

import uuid

import pytest
from kombu import Exchange, Queue

from celery import Celery
from celery.contrib.migrate import (
    State,
    StopFiltering,
    expand_dest,
    filter_status,
    migrate_tasks,
    move,
    move_by_taskmap,
    move_direct_by_id,
    move_task_by_id,
    prepare_queues,
    start_filter,
    task_id_in,
)
from celery.utils.nodenames import worker_direct


@pytest.fixture
def names():
    """Names of queues that no other test has: the broker is the process's."""
    suffix = uuid.uuid4().hex[:8]
    return {name: f"{name}-{suffix}" for name in ("source", "other", "elsewhere")}


@pytest.fixture
def app(names):
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.update(
        task_default_queue=names["source"],
        task_queues=[Queue(name, Exchange(name), name) for name in names.values()],
        broker_transport_options={"polling_interval": 0.001},
    )
    yield app
    app.close()


def send(app, name, count=1, **options):
    return [app.send_task(name, (number,), queue=app.conf.task_default_queue, **options).id for number in range(count)]


def waiting(app, queue):
    """The messages of a queue; they are gone then."""
    with app.connection() as connection:
        bound = (queue if isinstance(queue, Queue) else app.amqp.queues[queue]).bind(connection.default_channel)
        bound.declare()
        found = []
        while (message := bound.get(no_ack=True)) is not None:
            found.append(message)
        return found


def test_names_of_queues_come_as_text_lists_and_mappings():
    assert prepare_queues("a,b:c") == prepare_queues(["a", "b:c"]) == prepare_queues({"a": "a", "b": "c"})
    assert prepare_queues(None) == {}


def test_a_destination_completes_what_was_given():
    assert expand_dest(("ex", "key"), "a", "b") == ("ex", "key")
    assert expand_dest(True, "a", "b") == ("a", "b")


def test_tasks_are_moved_where_the_predicate_says(app, names):
    first, second, third = send(app, "one"), send(app, "two", 2), send(app, "three")
    moved = []

    def predicate(body, message):
        return {"one": app.amqp.queues[names["other"]], "two": (names["elsewhere"], names["elsewhere"])}.get(
            message.headers["task"]
        )

    state = move(predicate, app=app, timeout=0.1, callback=lambda state, body, message: moved.append(state.filtered))

    assert (state.filtered, moved) == (3, [1, 2, 3])
    assert [message.headers["id"] for message in waiting(app, names["other"])] == first
    assert {message.headers["id"] for message in waiting(app, names["elsewhere"])} == set(second)
    assert [message.headers["id"] for message in waiting(app, names["source"])] == third


def test_a_moved_message_is_what_it_was(app, names):
    (task_id,) = send(app, "one", priority=3, expires=60, compression="zlib")
    move_task_by_id(task_id, names["other"], app=app, timeout=0.1)
    (message,) = waiting(app, names["other"])

    assert message.payload[0] == [0]
    assert message.headers["task"] == "one"
    assert message.headers["expires"]
    assert (message.properties["priority"], message.properties["correlation_id"]) == (3, task_id)


def test_one_is_enough_where_one_was_asked_for(app, names, capsys):
    ids = send(app, "one", 3)
    state = move_task_by_id(ids[1], names["other"], app=app, timeout=10, callback=filter_status)

    assert state.filtered == 1
    assert capsys.readouterr().out == f"Moving task 1/3: one[{ids[1]}]\n"
    assert {message.headers["id"] for message in waiting(app, names["source"])} == {ids[0], ids[2]}


def test_tasks_go_by_their_names_and_to_workers_of_their_own(app, names):
    (one,), (two,) = send(app, "one"), send(app, "two")
    move_by_taskmap({"one": names["other"]}, app=app, timeout=0.1)
    worker = f"w1@{uuid.uuid4().hex[:6]}"
    move_direct_by_id(two, worker, app=app, timeout=0.1)

    assert [message.headers["id"] for message in waiting(app, names["other"])] == [one]
    assert [message.headers["id"] for message in waiting(app, worker_direct(worker))] == [two]


def test_tasks_are_copied_to_another_broker_under_another_name(app, names, tmp_path):
    ids = send(app, "one", 3)
    with app.connection() as source, app.connection_for_write(f"sqlite:///{tmp_path}/target.db") as target:
        state = migrate_tasks(
            source, target, app=app, queues={names["source"]: "renamed"}, timeout=0.1, limit=2, ack_messages=True
        )
        assert (state.count, state.strtotal) == (2, "3")
        bound = Queue("renamed", Exchange(names["source"]), "renamed").bind(target.default_channel)
        assert [bound.get(no_ack=True).headers["id"] for _ in range(2)] == ids[:2]
    assert [message.headers["id"] for message in waiting(app, names["source"])] == ids[2:]


def test_a_filter_sees_the_tasks_that_are_named_and_may_stop(app, names):
    ids = [*send(app, "one", 2), *send(app, "two", 2)]
    seen = []

    def look(body, message):
        seen.append(message.headers["id"])
        if task_id_in(ids[3:], body, message):
            raise StopFiltering

    with app.connection() as connection:
        state = start_filter(app, connection, look, tasks="two", timeout=10, consume_from=[names["source"]])

    assert isinstance(state, State)
    assert seen == ids[2:]
    assert len(waiting(app, names["source"])) == 4
