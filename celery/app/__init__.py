"""The application: all that a client needs in order to define tasks and to call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from celery import _state
from celery._state import disable_trace, enable_trace, pop_current_task, push_current_task
from celery.local import Proxy

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.app.utils import AppPickler

__all__ = (
    "Celery",
    "AppPickler",
    "app_or_default",
    "default_app",
    "bugreport",
    "enable_trace",
    "disable_trace",
    "shared_task",
    "push_current_task",
    "pop_current_task",
)

P = ParamSpec("P")
R = TypeVar("R")
TaskType = TypeVar("TaskType", bound="Task[Any, Any]")

#: The app that is used where none is current.
default_app: Any = Proxy(lambda: _state.default_app)

_HOMES = {"Celery": "celery.app.base", "AppPickler": "celery.app.utils"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def app_or_default(app: Any = None) -> Any:
    """Return ``app``, or the current app for ``None``."""
    return _state.app_or_default(app)


def bugreport(app: Any = None) -> str:
    """Return what to paste into a bug report, about ``app`` or the current one."""
    return _state.app_or_default(app).bugreport()  # type: ignore[no-any-return]


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, base: type[TaskType], **kwargs: Any) -> Callable[[Callable[..., Any]], TaskType]: ...
@overload
def shared_task(*, bind: Literal[True], **kwargs: Any) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def shared_task(*, bind: Literal[False] = False, **kwargs: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def shared_task(*args: Any, **kwargs: Any) -> Any:
    """Make a task that every app has, those of now and those to come; for libraries, which know no app.

    What it returns stands for the task of the app that is current when it is used.  Takes the options of ``app.task``.
    """
    if len(args) == 1 and callable(args[0]):
        return _shared(args[0], kwargs)
    if args:
        raise TypeError(f"@shared_task takes one function, or options as keywords, not {args!r:.80}")
    return lambda function: _shared(function, kwargs)


def _shared(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    declare = _state.declare_in_every_app(function, options)
    for app in _state._get_active_apps():
        with app._finalize_mutex:
            if app.finalized:
                declare(app)

    def of_current_app() -> Any:
        app = _state.get_current_app()
        name = options.get("name") or app.gen_task_name(function.__name__, function.__module__)
        return app.tasks[name]

    return Proxy(of_current_app)
