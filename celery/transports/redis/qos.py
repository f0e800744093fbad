"""How many messages a channel may hold, and which it does; kombu's interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport import virtual

from celery.transports.message import Message

if TYPE_CHECKING:
    from celery.transports.redis.channel import Channel

__all__ = ("QoS",)


class QoS(virtual.QoS):
    """Counts what is delivered and not yet settled.  Redis has recorded it already when it arrives here."""

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        self.channel = channel
        self.prefetch_count = prefetch_count or 0
        self._delivered: dict[str, Message] = {}
        self._dirty: set[str] = set()

    def can_consume(self) -> bool:
        prefetch = self.prefetch_count
        return not prefetch or len(self._delivered) < prefetch

    def can_consume_max_estimate(self) -> int | None:
        prefetch = self.prefetch_count
        return max(prefetch - len(self._delivered), 0) if prefetch else None

    def append(self, message: Message, delivery_tag: str) -> None:
        self._delivered[delivery_tag] = message

    def get(self, delivery_tag: str) -> Message:
        return self._delivered[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        self.channel.basic_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.basic_reject(delivery_tag, requeue=requeue)

    def restore_unacked(self) -> list[Any]:
        """Put back everything that is not settled; errors are raised, so none are returned."""
        self.channel.restore_unacked()
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Put back everything that is not settled; the channel's ``close`` has done it already."""

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put back at once what holders that are gone have left."""
        self.channel.engine.sweep(self.channel)
