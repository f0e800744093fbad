"""What the other workers are up to: who is there, who went, and who is elected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from kombu import Consumer
from kombu.asynchronous.semaphore import DummyLock

from celery import bootsteps
from celery.utils.log import get_logger
from celery.utils.objects import Bunch
from celery.worker.consumer.mingle import Mingle

__all__ = ("Gossip",)

logger = get_logger(__name__)

#: How many elections may be under way or be remembered.
ELECTIONS_REMEMBERED = 1000


class Gossip(bootsteps.ConsumerStep):
    """Listens to the events of the other workers of this app.

    ``on.node_join``, ``on.node_leave`` and ``on.node_lost`` are sets of functions that get the worker.
    """

    label = "Gossip"
    requires = (Mingle,)
    _cons_stamp_fields = itemgetter("id", "clock", "hostname", "pid", "topic", "action", "cver")
    compatible_transports = {"amqp", "redis"}

    def __init__(
        self,
        c: Any,
        without_gossip: bool = False,
        interval: float = 5.0,
        heartbeat_interval: float = 2.0,
        **kwargs: Any,
    ) -> None:
        self.enabled = not without_gossip and self.compatible_transport(c.app)
        self.app = c.app
        self.interval = interval
        self.heartbeat_interval = heartbeat_interval
        self.timer: Any = None
        self._tref: Any = None
        c.gossip = self
        super().__init__(c, **kwargs)
        if not self.enabled:
            return
        self.Receiver = c.app.events.Receiver
        self.hostname = c.hostname
        self.full_hostname = f"{self.hostname}.{c.pid}"
        self.on: Any = Bunch(node_join=set(), node_leave=set(), node_lost=set())
        self.timer = c.timer
        self.state = c.app.events.State(
            on_node_join=self.on_node_join, on_node_leave=self.on_node_leave, max_tasks_in_memory=1
        )
        if c.hub:
            c._mutex = DummyLock()
        self.update_state = self.state.Worker
        self.dispatcher: Any = None
        self.clock = c.app.clock
        self.event_handlers: dict[str, Callable[[Any], Any]] = {
            "worker-elect": self.on_elect,
            "worker-elect-ack": self.on_elect_ack,
        }
        #: What is done with the winner of an election, by topic.
        self.election_handlers: dict[str, Callable[[Any], Any]] = {"task": self.call_task}
        #: The bids of each election, and who has acknowledged those that we started.
        self.consensus_requests: defaultdict[str, list[Any]] = defaultdict(list)
        self.consensus_replies: dict[str, list[str]] = {}

    def compatible_transport(self, app: Any) -> bool:
        with app.connection_for_read() as connection:
            return connection.transport.driver_type in self.compatible_transports

    # -- elections -------------------------------------------------------------------------------------------------

    def election(self, id: str, topic: str, action: Any = None) -> None:
        """Let the workers agree on one of them that does ``action``."""
        self.consensus_replies[id] = []
        self.dispatcher.send("worker-elect", id=id, topic=topic, action=action, cver=1)

    def call_task(self, task: Any) -> None:
        """Publish the signature ``task``: this node was elected to do it."""
        try:
            self.app.signature(task).apply_async()
        except Exception as exc:
            logger.exception("Could not call task: %r", exc)

    def on_elect(self, event: Any) -> None:
        """Somebody, maybe this node, asks for an election: enter the bid and acknowledge."""
        try:
            id_, clock, hostname, pid, topic, action, _ = self._cons_stamp_fields(event)
        except KeyError as exc:
            logger.error("election request missing field %s", exc)
            return
        self.consensus_requests[id_].append((clock, f"{hostname}.{pid}", topic, action))
        self._forget_oldest()
        self.dispatcher.send("worker-elect-ack", id=id_)

    def on_elect_ack(self, event: Any) -> None:
        """A node takes part in an election that we started; when all alive do, the earliest bid wins."""
        id_ = event["id"]
        replies = self.consensus_replies.get(id_)
        if replies is None:
            return  # not ours
        replies.append(event["hostname"])
        needed = {worker.hostname for worker in self.state.alive_workers()} | {self.hostname}
        if not needed <= set(replies):
            return
        bids = self.consensus_requests.pop(id_, ())
        del self.consensus_replies[id_]
        if not bids:
            return
        _, leader, topic, action = min(bids, key=itemgetter(0, 1))
        if leader != self.full_hostname:
            logger.info("node %s elected for %r", leader, id_)
            return
        logger.info("I won the election %r", id_)
        handler = self.election_handlers.get(topic)
        if handler is None:
            logger.error("Unknown election topic %r", topic)
        else:
            handler(action)

    def _forget_oldest(self) -> None:
        for elections in (self.consensus_requests, self.consensus_replies):
            while len(elections) > ELECTIONS_REMEMBERED:
                del elections[next(iter(elections))]

    # -- neighbours --------------------------------------------------------------------------------------------------

    def on_node_join(self, worker: Any) -> None:
        logger.debug("%s joined the party", worker.hostname)
        self._call_handlers(self.on.node_join, worker)

    def on_node_leave(self, worker: Any) -> None:
        logger.debug("%s left", worker.hostname)
        self._call_handlers(self.on.node_leave, worker)

    def on_node_lost(self, worker: Any) -> None:
        logger.info("missed heartbeat from %s", worker.hostname)
        self._call_handlers(self.on.node_lost, worker)

    def _call_handlers(self, handlers: set[Callable[..., Any]], *args: Any) -> None:
        for handler in list(handlers):
            try:
                handler(*args)
            except Exception as exc:
                logger.exception("Ignored error from handler %r: %r", handler, exc)

    def register_timer(self) -> None:
        if self._tref is not None:
            self._tref.cancel()
        self._tref = self.timer.call_repeatedly(self.interval, self.periodic)

    def periodic(self) -> None:
        """Find the nodes whose heartbeats stopped."""
        workers = self.state.workers
        for worker in [worker for worker in workers.values() if not worker.alive]:
            workers.pop(worker.hostname, None)
            self.on_node_lost(worker)

    # -- listening ---------------------------------------------------------------------------------------------------

    def start(self, c: Any) -> None:
        super().start(c)
        self.dispatcher = c.event_dispatcher

    def get_consumers(self, channel: Any) -> list[Any]:
        self.register_timer()
        receiver = self.Receiver(channel, routing_key="worker.#", queue_ttl=self.heartbeat_interval)
        return [
            Consumer(
                channel,
                queues=[receiver.queue],
                on_message=lambda message: self.on_message(receiver.event_from_message, message),
                no_ack=True,
            )
        ]

    def on_message(self, prepare: Callable[[Any], Any], message: Any) -> None:
        """Take one event; whatever it contains, gossip goes on."""
        routing_key = (message.delivery_info or {}).get("routing_key")
        if isinstance(routing_key, str) and routing_key.startswith("task"):
            return  # from a transport whose topic is a fanout: not worth decoding
        try:
            _, event = prepare(message.payload)
            if isinstance(event, dict) and str(event["type"]).startswith("worker"):
                self._take(event, message.headers.get("hostname") or event["hostname"])
        except Exception as exc:
            logger.error("Received an event that is none: %r", exc)

    def _take(self, event: dict[str, Any], hostname: str) -> None:
        handler = self.event_handlers.get(event["type"])
        if handler is not None:
            handler(event)
        elif hostname != self.hostname:
            self.state.event(event)
        else:
            self.clock.forward()
