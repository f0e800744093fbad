"""Objects of one thread or greenlet, and threads that run in the background."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import Any

from celery.local import Proxy

__all__ = (
    "bgThread",
    "Local",
    "LocalStack",
    "LocalManager",
    "get_ident",
    "default_socket_timeout",
    "bound_open_broker_sockets",
    "broker_sockets",
)


class bgThread(threading.Thread):
    """A daemon thread that calls ``body`` again and again until stopped.  A crash of it ends the process."""

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__()
        self.__is_shutdown = threading.Event()
        self.__is_stopped = threading.Event()
        self.daemon = True
        self.name = name or type(self).__name__

    def body(self) -> None:
        """Do one round of work."""
        raise NotImplementedError("subclasses do their work in body()")

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Tell on stderr what went wrong."""
        import traceback

        print(msg.format(*fmt), file=sys.stderr)
        traceback.print_exc(None, sys.stderr)

    def run(self) -> None:
        shutdown = self.__is_shutdown
        while not shutdown.is_set():
            try:
                self.body()
            except Exception as error:  # a thread that dies silently would leave the worker half alive
                try:
                    self.on_crash("{0!r} crashed: {1!r}", self.name, error)
                    self._set_stopped()
                finally:
                    sys.stderr.flush()
                    os._exit(1)
        self._set_stopped()

    def _set_stopped(self) -> None:
        try:
            self.__is_stopped.set()
        except TypeError:  # the interpreter is going down
            pass

    def stop(self) -> None:
        """Ask the thread to end, and wait until it did."""
        self.__is_shutdown.set()
        self.__is_stopped.wait()
        if self.is_alive():
            self.join(threading.TIMEOUT_MAX)


def release_local(local: Any) -> None:
    """Forget what this thread keeps in a ``Local`` or ``LocalStack``."""
    local.__release_local__()


class Local:
    """Attributes that each thread or greenlet has for itself.  ``local("name")`` is a proxy of one."""

    __slots__ = ("__ident_func__", "__storage__")

    def __init__(self) -> None:
        object.__setattr__(self, "__storage__", {})
        object.__setattr__(self, "__ident_func__", get_ident)

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        return iter(self.__storage__.items())

    def __call__(self, proxy: str) -> Proxy:
        return Proxy(self, name=proxy)

    def __release_local__(self) -> None:
        self.__storage__.pop(self.__ident_func__(), None)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__storage__[self.__ident_func__()][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self.__storage__.setdefault(self.__ident_func__(), {})[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self.__storage__[self.__ident_func__()][name]
        except KeyError:
            raise AttributeError(name) from None


class LocalStack:
    """A stack for each thread, greenlet or asyncio task; what is on top is current.

    It lives in a context variable, so code started with a copied context sees the stack as it was then, and
    what it pushes stays its own.
    """

    __slots__ = ("__ident_func__", "_node")

    def __init__(self) -> None:
        # a node is (object, node below)
        self._node: ContextVar[Any] = ContextVar("LocalStack", default=None)
        self.__ident_func__ = get_ident

    def push(self, obj: Any) -> None:
        """Put ``obj`` on top."""
        node = self._node
        node.set((obj, node.get()))

    def pop(self) -> Any:
        """Take the top away and return it; ``None`` if there is none."""
        variable = self._node
        node = variable.get()
        if node is None:
            return None
        variable.set(node[1])
        return node[0]

    @property
    def top(self) -> Any:
        """What was pushed last, or ``None``."""
        node = self._node.get()
        return None if node is None else node[0]

    @property
    def stack(self) -> list[Any]:
        """A list of all that was pushed, the top at its end."""
        items = []
        node = self._node.get()
        while node is not None:
            items.append(node[0])
            node = node[1]
        return items[::-1]

    def __len__(self) -> int:
        return len(self.stack)

    def __call__(self) -> Proxy:
        def current() -> Any:
            node = self._node.get()
            if node is None:
                raise RuntimeError("object unbound")
            return node[0]

        return Proxy(current)

    def __release_local__(self) -> None:
        self._node.set(None)


class LocalManager:
    """Releases several locals at once."""

    def __init__(self, locals: Any = None, ident_func: Callable[[], Any] | None = None) -> None:
        if locals is None:
            self.locals = []
        elif isinstance(locals, (Local, LocalStack)):
            self.locals = [locals]
        else:
            self.locals = list(locals)
        self.ident_func = ident_func or get_ident

    def get_ident(self) -> Any:
        """Return what tells this thread or greenlet from others."""
        return self.ident_func()

    def cleanup(self) -> None:
        """Release what this thread keeps in the locals."""
        for local in self.locals:
            release_local(local)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} storages: {len(self.locals)}>"


@contextmanager
def default_socket_timeout(timeout: float | None) -> Iterator[None]:
    """Have new sockets time out after ``timeout`` seconds meanwhile; the setting is the whole process's."""
    import socket

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def bound_open_broker_sockets(connection: Any, timeout: float) -> None:
    """Give the open sockets of a kombu connection a timeout, so that closing cannot hang on a dead broker.

    Sockets that never block, and whatever is closed already, are left alone.
    """
    for sock in broker_sockets(connection):
        try:
            if sock.gettimeout() != 0:
                sock.settimeout(timeout)
        except (AttributeError, OSError, ValueError):
            pass


def broker_sockets(connection: Any) -> Iterator[Any]:
    """Yield the open sockets of a kombu connection."""
    transport = getattr(connection, "_transport", None)
    established = getattr(connection, "_connection", None)
    wire = getattr(getattr(transport, "cycle", None), "wire", None)
    owners = [established, getattr(established, "transport", None), wire]
    for channel in (getattr(connection, "_default_channel", None), *(getattr(transport, "channels", None) or ())):
        owners += [getattr(getattr(channel, "client", None), "connection", None), *_pooled(channel)]
    for owner in owners:
        sock = getattr(owner, "sock", None) or getattr(owner, "_sock", None)
        if sock is not None:
            yield sock


def _pooled(channel: Any) -> Iterator[Any]:
    """Yield the connections in redis-py's pools behind a channel of kombu's; these are not made for it."""
    for pool_name in ("_pool", "_async_pool"):
        pool = getattr(channel, pool_name, None)
        for name in ("_available_connections", "_in_use_connections"):
            yield from list(getattr(pool, name, None) or ())
