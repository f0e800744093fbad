"""The client's side of remote control: ask workers to do something, or to tell something.

Commands travel by kombu's pidbox: a fanout to all workers, replies by a queue of the asking process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kombu.matcher import match
from kombu.pidbox import Mailbox
from kombu.utils.compat import register_after_fork
from kombu.utils.functional import lazy
from kombu.utils.objects import cached_property

from celery.app.encoding import encode
from celery.exceptions import DuplicateNodenameWarning, ImproperlyConfigured
from celery.utils.functional import maybe_list
from celery.utils.log import get_logger
from celery.utils.text import pluralize

__all__ = ("Control", "Inspect", "flatten_reply")

logger = get_logger(__name__)

Replies = dict[str, Any]


def flatten_reply(reply: Iterable[Replies]) -> Replies:
    """Return many one-worker replies as one mapping of node name → reply; warns of a name that answered twice."""
    nodes: Replies = {}
    twice: set[str] = set()
    for item in reply:
        twice.update(name for name in item if name in nodes)
        nodes.update(item)
    if twice:
        warnings.warn(
            DuplicateNodenameWarning(
                f"Received multiple replies from node {pluralize(len(twice), 'name')}: {', '.join(sorted(twice))}.\n"
                "Give each worker a name of its own by the -n option: celery worker -n worker1@%h"
            ),
            stacklevel=2,
        )
    return nodes


def _after_fork_cleanup_control(control: Control) -> None:
    try:
        control._after_fork()
    except Exception as exc:
        logger.info("after fork raised exception: %r", exc, exc_info=True)


class Inspect:
    """Questions to workers.  Each answer is ``{node name: reply}``, or ``None`` if nobody answered in time.

    ``destination`` names the nodes asked (none: all; one that is not in a list: the answer is its reply), ``pattern``
    and ``matcher`` (``glob`` or ``pcre``) select them by name, ``timeout`` is how long to wait for answers in
    seconds, ``limit`` how many to wait for; ``callback`` gets each as it comes.
    """

    app: Any = None

    def __init__(
        self,
        destination: Any = None,
        timeout: float = 1.0,
        callback: Callable[[Any], Any] | None = None,
        connection: Any = None,
        app: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app = app or self.app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _request(self, command: str, **arguments: Any) -> Any:
        destination = [self.destination] if isinstance(self.destination, str) else self.destination
        return self._prepare(
            self.app.control.broadcast(
                command,
                arguments=arguments,
                destination=destination,
                callback=self.callback,
                connection=self.connection,
                limit=self.limit,
                timeout=self.timeout,
                reply=True,
                pattern=self.pattern,
                matcher=self.matcher,
            )
        )

    def _prepare(self, reply: Any) -> Any:
        if not reply:
            return None
        by_node = flatten_reply(reply)
        if isinstance(self.destination, str) and not self.pattern:
            return by_node.get(self.destination)
        if self.pattern:
            return {node: reply for node, reply in by_node.items() if match(node, self.pattern, self.matcher)}  # type: ignore[arg-type]  # str
        return by_node

    def report(self) -> Any:
        """Return a description of each worker and its environment."""
        return self._request("report")

    def clock(self) -> Any:
        """Return each worker's logical clock."""
        return self._request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """Return the tasks that run now; ``safe`` gives arguments as text."""
        return self._request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Return the tasks that wait in workers for their time."""
        return self._request("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:
        """Return the tasks that wait in workers for a free slot."""
        return self._request("reserved")

    def stats(self) -> Any:
        """Return each worker's counters and its pool, broker and resource figures."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Return the ids that each worker knows as revoked."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Return the names of each worker's tasks, with the attributes of them that are asked for."""
        return self._request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: Any = None) -> Any:
        """Return ``{"ok": "pong"}`` of each worker that is alive."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def active_queues(self) -> Any:
        """Return the queues that each worker consumes."""
        return self._request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """Return where each worker has the tasks with these ids."""
        if len(ids) == 1 and isinstance(ids[0], (list, tuple)):
            ids = tuple(ids[0])
        return self._request("query_task", ids=ids)

    def conf(self, with_defaults: bool = False) -> Any:
        """Return each worker's settings, secrets masked."""
        return self._request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Greet the other workers and exchange revoked ids; a worker does this when it starts."""
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Return each worker's memory in use, and remember it as a sample."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Return the last samples of memory in use."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """Draw the references to objects of ``type`` in each worker (needs the package objgraph there)."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


class Control:
    """Commands to workers.  All take ``destination`` (node names; none: all) and the options of `broadcast`."""

    Mailbox = Mailbox

    def __init__(self, app: Any = None) -> None:
        self.app = app
        conf = app.conf
        if conf.control_queue_durable and conf.control_queue_exclusive:
            raise ImproperlyConfigured(
                "control_queue_durable and control_queue_exclusive cannot both be set: "
                "an exclusive queue ends with its connection, a durable one outlives it."
            )
        self.mailbox = self.Mailbox(
            conf.control_exchange,
            type="fanout",
            accept=conf.accept_content,
            serializer=conf.task_serializer,
            clock=app.clock,
            producer_pool=lazy(lambda: self.app.amqp.producer_pool),
            queue_ttl=conf.control_queue_ttl,
            reply_queue_ttl=conf.control_queue_ttl,
            queue_expires=conf.control_queue_expires,
            reply_queue_expires=conf.control_queue_expires,
            queue_exclusive=conf.control_queue_exclusive,
            queue_durable=conf.control_queue_durable,
        )
        register_after_fork(self, _after_fork_cleanup_control)

    def _after_fork(self) -> None:
        self.__dict__.pop("inspect", None)
        self.mailbox.__dict__.pop("producer_pool", None)  # the parent's; asked for again at the next message

    @cached_property
    def inspect(self) -> type[Inspect]:
        """Class of questions bound to this app: ``app.control.inspect(timeout=2).active()``."""
        bound: type[Inspect] = self.app.subclass_with_self(Inspect, reverse="control.inspect")
        return bound

    def purge(self, connection: Any = None) -> int:
        """Delete all waiting messages of the app's task queues, and return how many there were; for good."""
        with self.app.connection_for_write() if connection is None else _borrowed(connection) as conn:
            count: int = self.app.amqp.TaskConsumer(conn).purge()
            return count

    discard_all = purge

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Let the workers elect one of them, which then does ``action``."""
        self.broadcast(
            "election", connection=connection, destination=None, arguments={"id": id, "topic": topic, "action": action}
        )

    def revoke(
        self, task_id: Any, destination: Any = None, terminate: bool = False, signal: str = "SIGTERM", **kwargs: Any
    ) -> Any:
        """Tell workers not to run a task (or each of a list); ``terminate`` also ends it by ``signal`` if it runs.

        Terminating kills the process that runs the task, whatever it runs by then.  Where the broker or the result
        store can keep a record (Redis), workers that start later know of it, too.
        """
        if destination is None:
            self.remember_revoked(maybe_list(task_id) or (), {}, kwargs.get("connection"))
        return self.broadcast(
            "revoke",
            destination=destination,
            arguments={"task_id": task_id, "terminate": terminate, "signal": signal},
            **kwargs,
        )

    def revoke_by_stamped_headers(
        self, headers: Any, destination: Any = None, terminate: bool = False, signal: str = "SIGTERM", **kwargs: Any
    ) -> Any:
        """Revoke every task that carries one of these stamps: ``{header: value or values}``."""
        if destination is None:
            stamps = {header: maybe_list(values) or () for header, values in headers.items()}
            self.remember_revoked((), stamps, kwargs.get("connection"))
        result = self.broadcast(
            "revoke_by_stamped_headers",
            destination=destination,
            arguments={"headers": headers, "terminate": terminate, "signal": signal},
            **kwargs,
        )
        task_ids: set[str] = set()
        for reply in result or ():
            for answer in reply.values():
                found = answer.get("ok") if isinstance(answer, dict) else None
                task_ids.update(found if isinstance(found, (list, set, tuple)) else ())
        if task_ids:
            return self.revoke(list(task_ids), destination=destination, terminate=terminate, signal=signal, **kwargs)
        return result

    def remember_revoked(self, ids: Iterable[str], stamps: Mapping[str, Iterable[Any]], connection: Any = None) -> None:
        """Put revoked tasks, by id or stamp, on record: the broker's, else the result store's if it keeps one."""
        if self.broker_remembers_revoked(ids, stamps, connection):
            return
        try:
            self.app.backend.remember_revoked(ids, stamps)
        except Exception as error:  # workers that run are told all the same
            logger.warning("That tasks are revoked could not be put on record: %r", error)

    def broker_remembers_revoked(
        self, ids: Iterable[str], stamps: Mapping[str, Iterable[Any]], connection: Any = None
    ) -> bool:
        """Put revoked tasks on the broker's record; return whether it keeps one."""
        with self.app.connection_or_acquire(connection) as conn:
            store = getattr(conn.default_channel, "store_revoked", None)
            if store is not None:
                store(ids, stamps, list(self.app.amqp.queues))
            return store is not None

    def terminate(self, task_id: Any, destination: Any = None, signal: str = "SIGTERM", **kwargs: Any) -> Any:
        """Revoke a task and end it by ``signal`` if it runs."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)

    def ping(self, destination: Any = None, timeout: float = 1.0, **kwargs: Any) -> Any:
        """Return ``{node name: {"ok": "pong"}}`` of each worker that answered in ``timeout`` seconds, as a list."""
        return self.broadcast("ping", reply=True, arguments={}, destination=destination, timeout=timeout, **kwargs)

    def rate_limit(self, task_name: str, rate_limit: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Let each worker start at most so many tasks of this name: ``"10/s"``, ``"5/m"``; 0 or ``None`` for any."""
        return self.broadcast(
            "rate_limit",
            destination=destination,
            arguments={"task_name": task_name, "rate_limit": rate_limit},
            **kwargs,
        )

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: dict[str, Any] | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Let workers consume from ``queue``, too; it is declared if they do not know it."""
        return self.broadcast(
            "add_consumer",
            destination=destination,
            arguments={
                "queue": queue,
                "exchange": exchange,
                "exchange_type": exchange_type,
                "routing_key": routing_key,
                **(options or {}),
            },
            **kwargs,
        )

    def cancel_consumer(self, queue: str, destination: Any = None, **kwargs: Any) -> Any:
        """Let workers consume no more from ``queue``."""
        return self.broadcast("cancel_consumer", destination=destination, arguments={"queue": queue}, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Change the time limits of a task, in seconds; tasks that run already keep theirs."""
        return self.broadcast(
            "time_limit",
            destination=destination,
            arguments={"task_name": task_name, "hard": hard, "soft": soft},
            **kwargs,
        )

    def enable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Let workers send task events."""
        return self.broadcast("enable_events", destination=destination, arguments={}, **kwargs)

    def disable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Let workers send no more task events."""
        return self.broadcast("disable_events", destination=destination, arguments={}, **kwargs)

    def pool_grow(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Add ``n`` slots to each worker's pool."""
        return self.broadcast("pool_grow", destination=destination, arguments={"n": n}, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Take ``n`` slots from each worker's pool."""
        return self.broadcast("pool_shrink", destination=destination, arguments={"n": n}, **kwargs)

    def autoscale(self, max: int, min: int, destination: Any = None, **kwargs: Any) -> Any:
        """Change the limits of autoscaling."""
        return self.broadcast("autoscale", destination=destination, arguments={"max": max, "min": min}, **kwargs)

    def shutdown(self, destination: Any = None, **kwargs: Any) -> Any:
        """Stop workers, warm."""
        return self.broadcast("shutdown", destination=destination, arguments={}, **kwargs)

    def pool_restart(
        self,
        modules: Iterable[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Restart the processes of each pool, after loading ``modules`` (again with ``reload``).

        Workers allow this with the setting ``worker_pool_restarts``.
        """
        return self.broadcast(
            "pool_restart",
            destination=destination,
            arguments={"modules": modules, "reload": reload, "reloader": reloader},
            **kwargs,
        )

    def heartbeat(self, destination: Any = None, **kwargs: Any) -> Any:
        """Let workers send a heartbeat event now."""
        return self.broadcast("heartbeat", destination=destination, arguments={}, **kwargs)

    def broadcast(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        destination: Any = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[[Any], Any] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> Any:
        """Send ``command`` to workers; with ``reply``, wait and return a list of their answers.

        ``timeout`` is in seconds, ``limit`` the number of answers to wait for, ``callback`` gets each as it comes.
        """
        with self.app.connection_or_acquire(connection) as conn:
            arguments = {**(arguments or {}), **extra_kwargs}
            mailbox = self.mailbox(conn)
            if connection is not None:  # over this one, instead of one more from the pool, which would keep it
                mailbox.__dict__["producer_pool"] = None
            if self.app.signing is not None:
                mailbox.producer_or_acquire = _signing(mailbox.producer_or_acquire, self.app.signing)
            return mailbox._broadcast(
                command,
                arguments,
                destination,
                reply,
                timeout,
                limit,
                callback,
                channel=channel,
                pattern=pattern,
                matcher=matcher,
            )


def _signing(producer_or_acquire: Callable[..., Any], signing: Any) -> Callable[..., Any]:
    """Return ``producer_or_acquire`` of a mailbox, giving producers that sign the commands they publish."""

    @contextmanager
    def signing_producer(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with producer_or_acquire(*args, **kwargs) as producer:
            yield _SigningProducer(producer, signing)

    return signing_producer


class _SigningProducer:
    """Publishes a mailbox's commands signed."""

    def __init__(self, producer: Any, signing: Any) -> None:
        self._producer = producer
        self._signing = signing

    def publish(self, body: Any, exchange: str, headers: dict[str, Any], serializer: str | None, **options: Any) -> Any:
        encoded, content_type, content_encoding = encode(body, serializer, None, headers)
        self._signing.sign("command", encoded, content_type, content_encoding, headers, {}, exchange, "")
        return self._producer.publish(
            encoded,
            exchange=exchange,
            headers=headers,
            content_type=content_type,
            content_encoding=content_encoding,
            **options,
        )


class _borrowed:
    """A connection of somebody else's, not to be closed here."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __enter__(self) -> Any:
        return self.connection

    def __exit__(self, *exc_info: Any) -> None:
        pass
