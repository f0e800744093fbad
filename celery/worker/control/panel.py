"""The table of remote control commands, and how commands enter it."""

from __future__ import annotations

import inspect
from collections import UserDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

__all__ = ("Panel", "check_texts", "control_command", "controller_info_t", "inspect_command", "nok", "ok")

Handler = TypeVar("Handler", bound=Callable[..., Any])

DEFAULT_TIMEOUT = 1.0


class controller_info_t(NamedTuple):
    """What the command line knows of a command.

    ``args`` are ``(name, type)`` pairs for positional arguments, ``variadic`` names the argument that takes the rest.
    """

    alias: str | None
    type: str
    visible: bool
    default_timeout: float
    help: str | None
    signature: str | None
    args: Any
    variadic: str | None


controller_info_t.__module__ = "celery.worker.control"


def ok(value: Any) -> dict[str, Any]:
    """Return the reply that says that it worked."""
    return {"ok": value}


def nok(value: Any) -> dict[str, Any]:
    """Return the reply that says why it did not."""
    return {"error": value}


def check_texts(**arguments: Any) -> None:
    """Complain of arguments that are no text.

    Raises:
        TypeError: of the first; the text names it.
    """
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise TypeError(f"`{name}` is no text but {value!r:.100}")


class Panel(UserDict):  # type: ignore[type-arg]
    """Every command of this process: name → handler in ``data``, name → `controller_info_t` in ``meta``."""

    data: dict[str, Callable[..., Any]] = {}  # one table for all, on purpose
    meta: dict[str, controller_info_t] = {}

    @classmethod
    def register(cls, *args: Any, **kwargs: Any) -> Any:
        """Register a handler: ``@Panel.register`` or ``@Panel.register(name=..., type="inspect", ...)``."""
        if args:
            return cls._register(**kwargs)(*args)
        return cls._register(**kwargs)

    @classmethod
    def _register(
        cls,
        name: str | None = None,
        alias: str | None = None,
        type: str = "control",
        visible: bool = True,
        default_timeout: float = DEFAULT_TIMEOUT,
        help: str | None = None,
        signature: str | None = None,
        args: Any = None,
        variadic: str | None = None,
    ) -> Callable[[Handler], Handler]:
        def enter(handler: Handler) -> Handler:
            command = name or handler.__name__
            text = help or (inspect.getdoc(handler) or "").strip().split("\n")[0]
            cls.data[command] = handler
            cls.meta[command] = controller_info_t(
                alias, type, visible, default_timeout, text, signature, args, variadic
            )
            if alias:
                cls.data[alias] = handler
            return handler

        return enter


Panel.__module__ = "celery.worker.control"


def control_command(**kwargs: Any) -> Callable[[Handler], Handler]:
    """Register the decorated function as a command that changes something: ``celery control NAME``."""
    return Panel.register(type="control", **kwargs)  # type: ignore[no-any-return]


def inspect_command(**kwargs: Any) -> Callable[[Handler], Handler]:
    """Register the decorated function as a command that only tells: ``celery inspect NAME``."""
    return Panel.register(type="inspect", **kwargs)  # type: ignore[no-any-return]
