"""Connections of an app to its broker, one by one and in pools."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celery.utils.objects import FallbackContext

if TYPE_CHECKING:
    from kombu.connection import ConnectionPool

    from celery.app.settings.view import Settings

__all__ = ("Connecting",)


class Connecting:
    """Part of ``Celery``: ``connection_for_write()`` and its kin."""

    conf: Settings
    amqp: Any
    _pool: ConnectionPool | None

    def connection_for_read(self, url: Any = None, **kwargs: Any) -> Any:
        """Return a connection to consume from, not yet open."""
        return self._connection(url or self.conf.broker_read_url, "broker_read_url", **kwargs)

    def connection_for_write(self, url: Any = None, **kwargs: Any) -> Any:
        """Return a connection to publish on, not yet open."""
        return self._connection(url or self.conf.broker_write_url, "broker_write_url", **kwargs)

    def connection(
        self,
        hostname: Any = None,
        userid: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        port: int | None = None,
        ssl: Any = None,
        connect_timeout: float | None = None,
        transport: Any = None,
        transport_options: dict[str, Any] | None = None,
        heartbeat: float | None = None,
        login_method: str | None = None,
        failover_strategy: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Return a connection, not yet open; what is not given comes from the configuration.

        ``hostname`` may be a host, a URL, or several URLs to fail over to; ``connect_timeout`` and ``heartbeat`` are
        seconds.

        Raises:
            ImproperlyConfigured: a URL has an unknown scheme or cannot be understood.
        """
        return self._connection(
            hostname or self.conf.broker_write_url,
            "broker_write_url",
            userid=userid,
            password=password,
            virtual_host=virtual_host,
            port=port,
            ssl=ssl,
            connect_timeout=connect_timeout,
            transport=transport,
            transport_options=transport_options,
            heartbeat=heartbeat,
            login_method=login_method,
            failover_strategy=failover_strategy,
            **kwargs,
        )

    broker_connection = connection

    def _connection(
        self,
        url: Any,
        setting: str,
        userid: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        port: int | None = None,
        ssl: Any = None,
        connect_timeout: float | None = None,
        transport: Any = None,
        transport_options: dict[str, Any] | None = None,
        heartbeat: float | None = None,
        login_method: str | None = None,
        failover_strategy: Any = None,
        **kwargs: Any,
    ) -> Any:
        from celery.app.brokers import check_urls, connection_class, missing_package

        conf = self.conf
        transport = transport or conf.broker_transport
        check_urls(url, conf, setting, transport)
        try:
            return connection_class(self.amqp.Connection)(
                url,
                userid or conf.broker_user,
                password or conf.broker_password,
                virtual_host or conf.broker_vhost,
                port or conf.broker_port,
                transport=transport,
                ssl=conf.broker_use_ssl if ssl is None else ssl,
                heartbeat=heartbeat,
                login_method=login_method or conf.broker_login_method,
                failover_strategy=failover_strategy or conf.broker_failover_strategy,
                transport_options={**(conf.broker_transport_options or {}), **(transport_options or {})},
                connect_timeout=conf.broker_connection_timeout if connect_timeout is None else connect_timeout,
                **kwargs,
            )
        except (ImportError, NameError) as error:  # kombu's modules use names that they could not import
            raise missing_package(url, error, conf, setting) from error

    # -- pools

    @property
    def pool(self) -> ConnectionPool:
        """The pool of connections to publish on; ``broker_pool_limit`` is its size."""
        if self._pool is None:
            from kombu import pools

            pools.set_limit(self.conf.broker_pool_limit)  # type: ignore[no-untyped-call]
            self._pool = pools.connections[self.connection_for_write()]
        return self._pool

    @property
    def producer_pool(self) -> Any:
        """The pool of producers, each on a connection of ``pool``."""
        return self.amqp.producer_pool

    def connection_or_acquire(self, connection: Any = None, pool: bool = True, *_: Any, **__: Any) -> FallbackContext:
        """Return a context that gives ``connection``, or else one of the pool (a new one without ``pool``)."""
        return FallbackContext(connection, self._acquire_connection, pool=pool)

    default_connection = connection_or_acquire

    def producer_or_acquire(self, producer: Any = None) -> FallbackContext:
        """Return a context that gives ``producer``, or else one of the pool."""
        return FallbackContext(producer, self._acquire_producer)

    default_producer = producer_or_acquire

    def _batch(self) -> Any:
        """Return a context in which what this thread sends is collected, and sent together at its end."""
        from celery.app.publishing import batch

        return batch(self)

    def _acquire_connection(self, pool: bool = True) -> Any:
        return self._acquire(self.pool) if pool else self.connection_for_write()

    def _acquire_producer(self) -> Any:
        return self._acquire(self.producer_pool)

    def _acquire(self, pool: Any) -> Any:
        timeout = self.conf.broker_pool_acquire_timeout
        try:
            return pool.acquire(block=True, timeout=timeout)
        except pool.LimitExceeded as error:
            from kombu.exceptions import OperationalError

            raise OperationalError(
                f"No connection of the pool became free within {timeout} s: all {pool.limit} are in use. "
                "See `broker_pool_limit` and `broker_pool_acquire_timeout`."
            ) from error

    # -- after fork

    def _drop_connections(self) -> None:
        """Forget, in a forked child, what belongs to the parent."""
        self._pool = None
        amqp = vars(self).get("amqp")
        if amqp is not None:
            amqp._producer_pool = None


def _detach_pools_in_child() -> None:
    """Empty kombu's pools without touching the parent's connections.

    Closing one would end it for the parent too (AMQP says goodbye, TLS and ``shutdown`` act on the shared
    socket), and so would its destructor.  So its descriptor is pointed elsewhere first.
    """
    import sys

    pools = sys.modules.get("kombu.pools")
    if pools is None:
        return
    for group in pools._groups:
        for pool in group.values():
            for connection in _connections_of(pool):
                _detach(connection)
        group.clear()


def _connections_of(pool: Any) -> list[Any]:
    try:
        return [item for item in (*pool._resource.queue, *pool._dirty) if hasattr(item, "_connection")]
    except AttributeError:  # another kombu, with other insides
        return []


def _detach(connection: Any) -> None:
    try:
        descriptor = connection._connection.sock.fileno()
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nowhere, descriptor)
        finally:
            os.close(nowhere)
    except (AttributeError, OSError, ValueError):  # not open, or a transport that looks after itself
        pass
