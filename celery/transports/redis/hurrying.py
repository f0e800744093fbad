"""redis-py's connections, made to keep the deadline of the thread that uses them."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery.utils import deadlines

__all__ = ("in_time",)

#: What to wait for a connection where no limit is set.
CONNECT_SECONDS = 10.0


class InTime:
    """Mixed into a connection: neither to connect nor to wait for an answer takes longer than the deadline."""

    _sock: Any
    socket_timeout: Any
    socket_connect_timeout: Any

    def connect(self) -> Any:
        if deadlines.current.ends_at is None:
            return super().connect()  # type: ignore[misc]  # redis-py's
        usual = getattr(self, "socket_connect_timeout", None)
        self.socket_connect_timeout = deadlines.seconds_left(usual or CONNECT_SECONDS)
        try:
            return super().connect()  # type: ignore[misc]
        finally:
            self.socket_connect_timeout = usual

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        sock = self._sock
        if deadlines.current.ends_at is None or sock is None:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        usual = sock.gettimeout()
        sock.settimeout(deadlines.seconds_left(usual or CONNECT_SECONDS))
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        finally:
            if self._sock is sock:  # else it was closed
                sock.settimeout(usual)


@cache
def in_time(connection_class: type) -> type:
    """Return ``connection_class`` with `InTime`, under its own name."""
    return type(connection_class.__name__, (InTime, connection_class), {"__module__": connection_class.__module__})
