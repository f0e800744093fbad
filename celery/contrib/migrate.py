"""Move tasks from broker to broker, or from queue to queue.

Messages of the source are consumed and published anew, body and headers as they are; only then, and only where the
caller says so, are they acknowledged.  So an error half-way leaves some tasks in two places and none in neither.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from kombu import Queue
from kombu.common import eventloop, maybe_declare

from celery.app import app_or_default
from celery.utils.nodenames import worker_direct
from celery.utils.text import str_to_list

__all__ = (
    "State",
    "StopFiltering",
    "expand_dest",
    "filter_callback",
    "filter_status",
    "migrate_task",
    "migrate_tasks",
    "move",
    "move_by_idmap",
    "move_by_taskmap",
    "move_direct",
    "move_direct_by_id",
    "move_direct_by_idmap",
    "move_direct_by_taskmap",
    "move_task_by_id",
    "prepare_queues",
    "republish",
    "start_filter",
    "task_id_eq",
    "task_id_in",
)

#: What `republish` does not take over as a property: arguments of their own say it.
OWN_ARGUMENTS = ("application_headers", "content_type", "content_encoding", "headers")
#: What a transport wrote for its own delivery.
OF_DELIVERY = ("delivery_info", "delivery_tag", "body_encoding")


class StopFiltering(Exception):
    """Raised by a callback when it has seen enough."""


class State:
    """How far it has come: messages that were seen, that passed, and that there are, as far as is known."""

    count = 0
    filtered = 0
    total_apx = 0

    @property
    def strtotal(self) -> str:
        return str(self.total_apx) if self.total_apx else "?"

    def __repr__(self) -> str:
        if self.filtered:
            return f"^{self.filtered}"
        return f"{self.count}/{self.strtotal}"


def republish(
    producer: Any,
    message: Any,
    exchange: str | None = None,
    routing_key: str | None = None,
    remove_props: Iterable[str] | None = None,
) -> None:
    """Publish ``message`` as it is, where it was published before or to another exchange or routing key."""
    info = message.delivery_info
    left_out = {*(OWN_ARGUMENTS if remove_props is None else remove_props), *OF_DELIVERY}
    properties = {name: value for name, value in message.properties.items() if name not in left_out}
    headers = dict(message.headers)
    headers.pop("redelivered", None)  # it is not, there
    compression = headers.pop("compression", None)  # the body is decompressed by now
    expiration = properties.pop("expiration", None)  # milliseconds as text; seconds are asked for
    producer.publish(
        message.body,
        exchange=info["exchange"] if exchange is None else exchange,
        routing_key=info["routing_key"] if routing_key is None else routing_key,
        compression=compression,
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        expiration=None if expiration is None else float(expiration) / 1000,
        **properties,
    )


def migrate_task(producer: Any, body_: Any, message: Any, queues: Mapping[str, str] | None = None) -> None:
    """Publish ``message`` by ``producer``; ``queues`` gives other names to exchanges and routing keys."""
    info = message.delivery_info
    names = queues or {}
    republish(producer, message, exchange=names.get(info["exchange"]), routing_key=names.get(info["routing_key"]))


def filter_callback(callback: Callable[[Any, Any], Any], tasks: Iterable[str]) -> Callable[[Any, Any], Any]:
    """Return ``callback`` for messages of these tasks only; without tasks, for all."""
    names = frozenset(tasks or ())

    def filtered(body: Any, message: Any) -> Any:
        if names and _header(body, message, "task") not in names:
            return None
        return callback(body, message)

    return filtered


def migrate_tasks(
    source: Any,
    dest: Any,
    migrate: Callable[..., Any] = migrate_task,
    app: Any = None,
    queues: Any = None,
    **kwargs: Any,
) -> State:
    """Publish the tasks of the broker ``source`` (a connection) at ``dest`` too.

    ``queues`` are those to take, and their new names: ``"a,b:other"``.  The other arguments are those of `Filterer`;
    with ``ack_messages=True`` the tasks leave the source.
    """
    app = app_or_default(app)
    names = prepare_queues(queues)
    producer = app.amqp.Producer(dest, auto_declare=False)

    def declare_at_destination(queue: Any) -> None:
        new_name = names.get(queue.name, queue.name)
        routing_key = new_name if queue.routing_key in (None, "", queue.name) else queue.routing_key
        copy = queue.__copy__()
        copy.name, copy.routing_key = new_name, routing_key
        copy.bind(producer.channel).declare()

    return start_filter(
        app,
        source,
        partial(migrate, producer, queues=names),
        queues=names,
        on_declare_queue=declare_at_destination,
        **kwargs,
    )


def move(
    predicate: Callable[[Any, Any], Any],
    connection: Any = None,
    exchange: str | None = None,
    routing_key: str | None = None,
    source: Iterable[Any] | None = None,
    app: Any = None,
    callback: Callable[..., Any] | None = None,
    limit: int | None = None,
    transform: Callable[[Any], Any] | None = None,
    **kwargs: Any,
) -> State:
    """Move the tasks for which ``predicate(body, message)`` says where to.

    It returns a queue, a pair ``(exchange, routing_key)``, true for the ``exchange`` and ``routing_key`` given here, or
    a false value to leave the task where it is.  ``transform`` is called on what it returns; ``source`` names the
    queues to look at (default: those that a worker consumes); ``limit`` is how many are moved at most.
    ``callback(state, body, message)`` is called for each.
    """
    app = app_or_default(app)
    queues = [_queue(app, queue) for queue in source or ()] or None
    with app.connection_or_acquire(connection, pool=False) as connection:
        producer = app.amqp.Producer(connection)
        state = State()

        def move_one(body: Any, message: Any) -> None:
            wanted = predicate(body, message)
            if not wanted:
                return
            if transform:
                wanted = transform(wanted)
            if isinstance(wanted, Queue):
                maybe_declare(wanted, connection.default_channel)
                target = wanted.exchange.name, wanted.routing_key or ""
            else:
                target = expand_dest(wanted, exchange, routing_key)
            info = message.delivery_info
            if target == (info.get("exchange"), info.get("routing_key")):
                return  # it is there, and would come to us again and again
            republish(producer, message, exchange=target[0], routing_key=target[1])
            message.ack()
            state.filtered += 1
            if callback:
                callback(state, body, message)
            if limit and state.filtered >= limit:
                raise StopFiltering

        return start_filter(app, connection, move_one, consume_from=queues, state=state, **kwargs)


def expand_dest(ret: Any, exchange: str | None, routing_key: str | None) -> tuple[Any, Any]:
    """Return ``(exchange, routing key)``: those that ``ret`` has, else the ones given."""
    if isinstance(ret, (list, tuple)) and len(ret) == 2:
        return ret[0], ret[1]
    return exchange, routing_key


def task_id_eq(task_id: str, body: Any, message: Any) -> bool:
    """Return whether this is the task of that id."""
    return bool(_header(body, message, "id") == task_id)


def task_id_in(ids: Any, body: Any, message: Any) -> bool:
    """Return whether the task's id is one of ``ids``."""
    return _header(body, message, "id") in ids


def _header(body: Any, message: Any, name: str) -> Any:
    """Return a header of a task message; in version 1 they are in the body."""
    value = message.headers.get(name)
    if value is None and isinstance(body, Mapping):
        value = body.get(name)
    return value


def prepare_queues(queues: Any) -> dict[str, str]:
    """Return queues as a mapping of names to new names.

    They may be such a mapping, a list, or text: ``"a,b:other"`` takes `a` as it is and `b` as `other`.
    """
    if queues is None:
        return {}
    if isinstance(queues, Mapping):
        return dict(queues)
    words = str_to_list(queues) if isinstance(queues, str) else queues
    pairs = (word.partition(":") for word in words)
    return {name: new_name or name for name, _, new_name in pairs}


class Filterer:
    """Consumes queues and gives each message to ``filter(body, message)``.

    It ends after ``limit`` messages, when a callback raises `StopFiltering`, or when nothing came for ``timeout``
    seconds (never, with ``forever``).  Messages are acknowledged if ``ack_messages``, else they go back at the end.

    ``tasks`` and ``queues`` are names (text with commas, or lists) of what is taken, ``consume_from`` queues to
    consume in place of the app's; ``callback(state, body, message)`` is called after the filter,
    ``on_declare_queue(queue)`` for each queue before.
    """

    def __init__(
        self,
        app: Any,
        conn: Any,
        filter: Callable[[Any, Any], Any],
        limit: int | None = None,
        timeout: float | None = 1.0,
        ack_messages: bool = False,
        tasks: Any = None,
        queues: Any = None,
        callback: Callable[..., Any] | None = None,
        forever: bool = False,
        on_declare_queue: Callable[[Any], Any] | None = None,
        consume_from: Any = None,
        state: State | None = None,
        accept: Any = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.conn = conn
        self.filter = filter
        self.limit = limit
        self.timeout = timeout
        self.ack_messages = ack_messages
        self.tasks = set(str_to_list(tasks) or ())
        self.queues = prepare_queues(queues)
        self.callback = callback
        self.forever = forever
        self.on_declare_queue = on_declare_queue
        self.consume_from = [_queue(app, queue) for queue in consume_from or self.queues] or None
        self.state = state or State()
        self.accept = accept
        #: What was taken; at the end, what is not acknowledged goes back.
        self._taken: list[Any] = []

    def start(self) -> State:
        """Run until it is over; return how far it has come."""
        with self.prepare_consumer(self.create_consumer()):
            try:
                for _ in eventloop(self.conn, timeout=self.timeout, ignore_timeouts=self.forever):
                    pass
            except (socket.timeout, StopFiltering):  # noqa: UP041 - another class before Python 3.10 and in kombu
                pass
            finally:
                self._give_back()
        return self.state

    def _give_back(self) -> None:
        """Put back what nobody acknowledged, the last first, so that the order stays."""
        for message in reversed(self._taken):
            if not message.acknowledged:
                message.requeue()
        self._taken.clear()

    def _take(self, body: Any, message: Any) -> None:
        self._taken.append(message)

    def update_state(self, body: Any, message: Any) -> None:
        """Count a message.

        Raises:
            StopFiltering: it was the last one.
        """
        self.state.count += 1
        if self.limit and self.state.count >= self.limit:
            raise StopFiltering

    def ack_message(self, body: Any, message: Any) -> None:
        message.ack()

    def create_consumer(self) -> Any:
        return self.app.amqp.TaskConsumer(self.conn, queues=self.consume_from, accept=self.accept)

    def prepare_consumer(self, consumer: Any) -> Any:
        """Register what is done with each message, and look at the queues."""
        consumer.register_callback(self._take)
        for callback in (
            self.filter,
            partial(self.callback, self.state) if self.callback else None,
            self.ack_message if self.ack_messages else None,
        ):
            if callback is not None:
                consumer.register_callback(filter_callback(callback, self.tasks))
        consumer.register_callback(self.update_state)
        self.declare_queues(consumer)
        return consumer

    def declare_queues(self, consumer: Any) -> None:
        """Declare the queues, and count what is in them."""
        for queue in consumer.queues:
            if self.queues and queue.name not in self.queues:
                continue
            if self.on_declare_queue is not None:
                self.on_declare_queue(queue)
            try:
                _, waiting, _ = queue(consumer.channel).queue_declare(passive=True)
            except self.conn.channel_errors:  # it is not there, and nothing is in it
                continue
            self.state.total_apx += waiting or 0


def start_filter(
    app: Any,
    conn: Any,
    filter: Callable[[Any, Any], Any],
    limit: int | None = None,
    timeout: float | None = 1.0,
    ack_messages: bool = False,
    tasks: Any = None,
    queues: Any = None,
    callback: Callable[..., Any] | None = None,
    forever: bool = False,
    on_declare_queue: Callable[[Any], Any] | None = None,
    consume_from: Any = None,
    state: State | None = None,
    accept: Any = None,
    **kwargs: Any,
) -> State:
    """Make a `Filterer` and start it."""
    return Filterer(
        app,
        conn,
        filter,
        limit=limit,
        timeout=timeout,
        ack_messages=ack_messages,
        tasks=tasks,
        queues=queues,
        callback=callback,
        forever=forever,
        on_declare_queue=on_declare_queue,
        consume_from=consume_from,
        state=state,
        accept=accept,
        **kwargs,
    ).start()


def move_task_by_id(task_id: str, dest: Any, **kwargs: Any) -> State:
    """Move one task to the queue ``dest``, the queue or its name."""
    return move_by_idmap({task_id: dest}, **kwargs)


def move_by_idmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move tasks by id: ``{id: queue}``; it ends when all are found."""

    def by_id(body: Any, message: Any) -> Any:
        return _destination(map.get(_header(body, message, "id")), **kwargs)

    # each id once: more than so many cannot be found
    return move(by_id, limit=len(map), **kwargs)


def move_by_taskmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move tasks by name: ``{name: queue}``."""

    def by_name(body: Any, message: Any) -> Any:
        return _destination(map.get(_header(body, message, "task")), **kwargs)

    return move(by_name, **kwargs)


def _destination(dest: Any, app: Any = None, transform: Any = None, **kwargs: Any) -> Any:
    """Return the queue that ``dest`` names; what ``transform`` will make of it is left to that."""
    return _queue(app_or_default(app), dest) if dest and transform is None else dest


def _queue(app: Any, queue: Any) -> Any:
    return app.amqp.queues[queue] if isinstance(queue, str) else queue


def filter_status(state: State, body: Any, message: Any, **kwargs: Any) -> None:
    """Print that a task was moved; a callback for `move`."""
    task, task_id = _header(body, message, "task"), _header(body, message, "id")
    print(f"Moving task {state.filtered}/{state.strtotal}: {task}[{task_id}]")


#: The same with names of workers in place of queues, each of which has a queue of its own (``worker_direct``).
move_direct = partial(move, transform=worker_direct)
move_direct_by_id = partial(move_task_by_id, transform=worker_direct)
move_direct_by_idmap = partial(move_by_idmap, transform=worker_direct)
move_direct_by_taskmap = partial(move_by_taskmap, transform=worker_direct)
