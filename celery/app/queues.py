"""The queues that an app knows, and those of them that a worker consumes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from kombu import Exchange, Queue
from kombu.utils.functional import maybe_list

from celery.utils.text import indent as textindent

__all__ = ("Queues",)

QUEUE_FORMAT = ".> {0.name:<16} exchange={1.name}({1.type}) key={0.routing_key}"


class Queues(dict):  # type: ignore[type-arg]
    """Queue name to queue.  A name that is missing is declared, if that is allowed.

    ``select`` and ``deselect`` decide what :attr:`consume_from` holds; that changes nothing for those who send.
    """

    #: Chosen by :meth:`select`; while it is ``None``, every declared queue but created ones is consumed from.
    _consume_from: dict[str, Queue] | None = None

    def __init__(
        self,
        queues: Any = None,
        default_exchange: Exchange | None = None,
        create_missing: bool = True,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[..., Exchange] | None = None,
        max_priority: int | None = None,
        default_routing_key: str | None = None,
    ) -> None:
        super().__init__()
        self.aliases: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self.default_exchange = default_exchange
        self.default_routing_key = default_routing_key
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.autoexchange = Exchange if autoexchange is None else autoexchange
        self.max_priority = max_priority
        for name, queue in _by_name(queues):
            self.add(queue) if isinstance(queue, Queue) else self.add_compat(name, **queue)
        self._declared = dict(self)

    def __getitem__(self, name: str) -> Queue:
        alias = self.aliases.get(name)
        return super().__getitem__(name) if alias is None else alias

    def __setitem__(self, name: str, queue: Queue) -> None:
        if self.default_exchange and not queue.bindings and not queue.exchange.name:
            queue.exchange = self.default_exchange
        super().__setitem__(name, queue)
        alias: str | None = getattr(queue, "alias", None)
        if alias:
            self.aliases[alias] = queue

    def __missing__(self, name: str) -> Queue:
        if self.create_missing:
            return self.add(self.new_missing(name))
        raise KeyError(name)

    def add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add a queue object, or one made of a name and ``kwargs`` (``exchange``, ``routing_key``, ...)."""
        if not isinstance(queue, Queue):
            return self.add_compat(queue, **kwargs)
        return self._add(queue)

    def add_compat(self, name: str, **options: Any) -> Queue:
        """Add the queue that a mapping describes; ``binding_key`` is an older word for ``routing_key``."""
        options["routing_key"] = options.get("binding_key") or options.get("routing_key") or name
        return self._add(Queue.from_dict(name, **options))

    def _add(self, queue: Any) -> Queue:
        if not queue.routing_key:
            queue.routing_key = self.default_routing_key
        if self.max_priority is not None and queue.max_priority is None:
            queue.queue_arguments = {"x-max-priority": self.max_priority, **(queue.queue_arguments or {})}
        self[queue.name] = queue
        return queue

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """Return the queues that are consumed from as lines of text, for the banner."""
        lines = [
            QUEUE_FORMAT.format(queue, queue.exchange or Exchange("", "bindings")).strip()
            for _, queue in sorted(self.consume_from.items())
        ]
        if not lines:
            return ""
        if indent_first:
            return textindent("\n".join(lines), indent)
        return "\n".join([lines[0], textindent("\n".join(lines[1:]), indent)] if lines[1:] else lines)

    def select(self, include: str | Iterable[str] | None) -> None:
        """Consume from the queues ``include`` only, declaring those that are missing."""
        if include:
            self._consume_from = {name: self[name] for name in maybe_list(include)}

    def select_add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add a queue and consume from it, too."""
        added = self.add(queue, **kwargs)
        consumed = self._declared if self._consume_from is None else self._consume_from
        consumed[added.name] = added
        return added

    def deselect(self, exclude: str | Iterable[str] | None) -> None:
        """Stop consuming from the queues ``exclude``; names that are unknown are passed over."""
        if not exclude:
            return
        excluded = set(maybe_list(exclude))
        self._consume_from = {name: queue for name, queue in self.consume_from.items() if name not in excluded}

    def new_missing(self, name: str) -> Queue:
        """Return a new queue for a name nobody declared, with an exchange of its own name."""
        arguments = None
        if self.create_missing_queue_type and self.create_missing_queue_type != "classic":
            kind = self.create_missing_queue_type
            if kind != "quorum":
                raise ValueError(f"`task_create_missing_queue_type` must be 'classic' or 'quorum', is {kind!r}.")
            arguments = {"x-queue-type": kind}
        if self.create_missing_queue_exchange_type:
            exchange = self.autoexchange(name, type=self.create_missing_queue_exchange_type)
        else:
            exchange = self.autoexchange(name)
        return Queue(name, exchange, name, queue_arguments=arguments)

    @property
    def consume_from(self) -> Mapping[str, Queue]:
        """The queues a worker consumes from."""
        return self._declared if self._consume_from is None else self._consume_from


def _by_name(queues: Any) -> Iterable[tuple[str, Any]]:
    if queues is None:
        return ()
    if isinstance(queues, Mapping):
        return queues.items()
    return [(queue.name, queue) for queue in queues]
