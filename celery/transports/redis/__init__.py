"""Redis as a broker, by lease: each message is taken and recorded in one step, and returned when its holder is gone.

A consumed message: list → ``reserve.lua`` → ``Engine`` → ``Channel.deliver`` → consumer's callback →
``Message.ack`` → next ``reserve.lua``.  A published one: ``Publisher`` or kombu's producer → ``Sender`` → ``LPUSH``.
Keys and messages are kombu's, so its peers share the queues.  See docs/design/redis-broker.md.
"""

from __future__ import annotations

from celery.transports.message import Message
from celery.transports.redis.channel import Channel, SentinelChannel
from celery.transports.redis.errors import BrokerFull, MessageTooLarge
from celery.transports.redis.publisher import Publisher
from celery.transports.redis.transport import SentinelTransport, Transport

__all__ = (
    "BrokerFull",
    "Channel",
    "Message",
    "MessageTooLarge",
    "Publisher",
    "SentinelChannel",
    "SentinelTransport",
    "Transport",
)
