"""Results in Redis."""

from celery.exceptions import ImproperlyConfigured

try:
    import redis as _redis
except ImportError:
    raise ImproperlyConfigured("The Redis result backend needs redis-py: pip install celery[redis]") from None

from kombu.transport.redis import get_redis_error_classes

from celery.backends.redis.backend import RedisBackend
from celery.backends.redis.consumer import ResultConsumer
from celery.backends.redis.sentinel import SentinelBackend, SentinelManagedSSLConnection

__all__ = ("RedisBackend", "SentinelBackend")

for _name in (RedisBackend, SentinelBackend, ResultConsumer, SentinelManagedSSLConnection):
    _name.__module__ = __name__  # pickles and reprs name the door
del _name
