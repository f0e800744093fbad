"""Results in Redis."""

from typing import Any

from celery.exceptions import ImproperlyConfigured

try:
    import redis as _redis
except ImportError:
    raise ImproperlyConfigured("The Redis result backend needs redis-py: pip install celery[redis]") from None

from celery.backends.redis.backend import RedisBackend
from celery.backends.redis.consumer import ResultConsumer
from celery.backends.redis.sentinel import SentinelBackend, SentinelManagedSSLConnection

__all__ = ("RedisBackend", "SentinelBackend")

for _name in (RedisBackend, SentinelBackend, ResultConsumer, SentinelManagedSSLConnection):
    _name.__module__ = __name__  # pickles and reprs name the door
del _name


def __getattr__(name: str) -> Any:
    if name == "get_redis_error_classes":  # Upstream: a name of kombu's, slow to import
        from kombu.transport.redis import get_redis_error_classes

        return get_redis_error_classes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
