"""What can go wrong between us and Redis, sorted by meaning: moved, refused, full, too big."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import virtual
from kombu.transport.redis import get_redis_error_classes
from redis import exceptions
from redis.sentinel import MasterNotFoundError, SlaveNotFoundError

from celery.transports.errors import MessageTooLarge
from celery.utils.failpoints import is_active

__all__ = ("CHANNEL_ERRORS", "CONNECTION_ERRORS", "BrokerFull", "MessageTooLarge", "publish_error")


class BrokerFull(OperationalError):
    """Redis refuses writes because its memory is used up; consuming goes on."""


_upstream = get_redis_error_classes()

#: What a server says that is master no more, or not yet.
_MOVED = (exceptions.ReadOnlyError, MasterNotFoundError, SlaveNotFoundError)

#: After these everything is built anew.  A ``KeyError`` is a bug, not a lost connection, so it is not among them.
CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    *(error for error in _upstream.connection_errors if error is not KeyError),
    *(_MOVED if not is_active("unprotect.moved") else ()),
)
CHANNEL_ERRORS: tuple[type[BaseException], ...] = (*virtual.Transport.channel_errors, *_upstream.channel_errors)


def publish_error(error: Exception, where: Any) -> Exception:
    """Return the error that a publisher should see for ``error``."""
    if isinstance(error, exceptions.OutOfMemoryError):
        return BrokerFull(f"The broker is full: Redis at {where} has reached its maxmemory and refuses new messages")
    return error
