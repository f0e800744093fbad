"""From a function or a class to a registered task."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import celery
from celery._state import declare_in_every_app
from celery.app.registry import TaskRegistry
from celery.exceptions import DuplicateTaskNameWarning
from celery.local import PromiseProxy
from celery.utils.functional import head_from_fun
from celery.utils.imports import gen_task_name

if TYPE_CHECKING:
    from celery.app.task import Task as TaskOf  # `Task` is an attribute of every app

__all__ = ("Declaring", "function_of")

P = ParamSpec("P")
R = TypeVar("R")
TaskType = TypeVar("TaskType", bound="TaskOf[Any, Any]")

_HOME = os.path.dirname(celery.__file__) + os.sep

#: Duplicates that were told of already; each app has the tasks of all others, and would tell again.
_told: set[tuple[str, str]] = set()


class Declaring:
    """Part of ``Celery``: ``@app.task``, ``register_task`` and names."""

    Task: Any
    autofinalize: bool
    finalized: bool
    tasks: TaskRegistry
    _tasks: TaskRegistry
    _pending: deque[Any]
    #: name → the function that was declared first under it, and its options
    _declared: dict[str, tuple[Callable[..., Any], dict[str, Any]]]

    @overload
    def task(self, function: Callable[P, R], /) -> TaskOf[P, R]: ...
    @overload
    def task(self, *, base: type[TaskType], **opts: Any) -> Callable[[Callable[..., Any]], TaskType]: ...
    @overload
    def task(
        self, *, bind: Literal[True], **opts: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], TaskOf[P, R]]: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **opts: Any) -> Callable[[Callable[P, R]], TaskOf[P, R]]: ...
    def task(self, *args: Any, **opts: Any) -> Any:
        """Make a task of a function; used with options or without.

        ``shared`` (default): apps that are finalized later get the task too.  ``lazy`` (default): the task is made
        when it is first used.  ``filter(task)`` returns what the name shall mean.  All else becomes an attribute
        of the task, such as ``name``, ``bind``, ``base``, ``max_retries`` or ``queue``.
        """
        if not args:
            return lambda function: self._declare(function, **opts)
        if len(args) > 1:
            raise TypeError(f"@task() takes exactly 1 argument ({len(args)} given)")
        if not callable(args[0]):
            raise TypeError(f"@task() takes a function, or options as keywords, not {args[0]!r:.80}")
        return self._declare(args[0], **opts)

    def _declare(
        self,
        function: Callable[..., Any],
        shared: bool = True,
        filter: Callable[[Any], Any] | None = None,
        lazy: bool = True,
        **options: Any,
    ) -> Any:
        if shared:
            declare_in_every_app(function, options)
        name = options.get("name") or self.gen_task_name(_name_of(function), function.__module__)
        first, _ = self._declared.setdefault(name, (function, options))
        if first is not function:
            warn_if_duplicate(name, first, function, "The first one is kept and the second is not used.")
        if not lazy or self.finalized:
            task = self._task_of_name(name)
        else:
            task = PromiseProxy(self._task_of_name, (name,), __doc__=function.__doc__)
            self._pending.append(task)
        return filter(task) if filter else task

    def _task_of_name(self, name: str) -> Any:
        function, options = self._declared[name]
        return self._task_from_fun(function, **options)

    def _task_from_fun(
        self,
        fun: Callable[..., Any],
        name: str | None = None,
        base: Any = None,
        bind: bool = False,
        pydantic: bool = False,
        pydantic_strict: bool = False,
        pydantic_context: dict[str, Any] | None = None,
        pydantic_dump_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Return the task ``name``, made from ``fun`` unless there is one of that name."""
        if not self.finalized and not self.autofinalize:
            raise RuntimeError("Contract breach: app not finalized")
        name = name or self.gen_task_name(_name_of(fun), fun.__module__)
        existing = self._tasks.get(name)
        if existing is not None:
            warn_if_duplicate(name, existing, fun, "The first one is kept and the second is not used.")
            return existing
        run = fun
        if pydantic:
            from celery.app import models

            run = models.pydantic_wrapper(self, fun, name, pydantic_strict, pydantic_context, pydantic_dump_kwargs)
            dump = models.argument_dumper(fun, name, bind, pydantic_dump_kwargs)
            options["_dump_pydantic_arguments"] = staticmethod(dump)
        task = self._make_task(fun, run, name, base or self.Task, bind, options)
        from celery.app.autoretry import add_autoretry_behaviour

        self._tasks[name] = task
        task.bind(self)
        add_autoretry_behaviour(task, **options)
        return task

    def _make_task(
        self,
        fun: Callable[..., Any],
        run: Callable[..., Any],
        name: str,
        base: Any,
        bind: bool,
        options: dict[str, Any],
    ) -> Any:
        method = run if bind else staticmethod(run)
        attributes = {
            "app": self,
            "name": name,
            "run": method,
            "_decorated": True,
            "__doc__": fun.__doc__,
            "__module__": fun.__module__,
            "__annotations__": getattr(fun, "__annotations__", {}),
            "__header__": self.type_checker(fun, bound=bind),
            "__wrapped__": method,
            **options,
        }
        task = type(_name_of(fun), (base,), attributes)()
        # inspect and pickle look for it on the object
        try:
            task.__qualname__ = fun.__qualname__
        except AttributeError:
            pass
        return task

    def type_checker(self, fun: Callable[..., Any], bound: bool = False) -> staticmethod[..., Any]:
        """Return what checks the arguments of a call: a function with the parameters of ``fun`` that does nothing."""
        return staticmethod(head_from_fun(fun, bound=bound))

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a task object, or a class of which one is made; a task of the same name is replaced."""
        if inspect.isclass(task):
            task = task()
        if not task.name:
            kind = type(task)
            task.name = self.gen_task_name(kind.__name__, kind.__module__)
        from celery.app.autoretry import add_autoretry_behaviour

        existing = self.tasks.get(task.name)
        if existing is not None and type(existing) is not type(task):
            warn_if_duplicate(task.name, existing, task, "The second one is used from now on.")
        add_autoretry_behaviour(task, **options)
        self.tasks[task.name] = task
        task._app = self
        task.bind(self)
        return task

    def gen_task_name(self, name: str, module: str | None) -> str:
        """Return the name of a task without one: its module and function."""
        return gen_task_name(self, name, module)


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


# -- two tasks of one name


def warn_if_duplicate(name: str, first: Any, second: Any, consequence: str) -> None:
    """Warn that two different callables have the task name ``name``; the same code read twice is no duplicate."""
    one, other = _place_of(first), _place_of(second)
    if one == other or (name, other) in _told:
        return
    _told.add((name, other))
    warnings.warn(
        f"Task name {name!r} is defined twice: {one} and {other}. {consequence} Give one of them another `name`.",
        DuplicateTaskNameWarning,
        stacklevel=_users_stacklevel(),
    )


def function_of(task: Any) -> Any:
    """Return the function that a task was made of; a function is returned as it is."""
    function = inspect.unwrap(getattr(task, "__wrapped__", None) or getattr(task, "run", None) or task)
    return getattr(function, "__func__", function)


def _place_of(task: Any) -> str:
    """Return ``module.function (file:line)`` of a task or a function."""
    function = function_of(task)
    code = getattr(function, "__code__", None)
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', _name_of(function))}"
    if code is None:
        return name
    path = code.co_filename
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        relative = path
    return f"{name} ({path if relative.startswith('..') else relative}:{code.co_firstlineno})"


def _users_stacklevel() -> int:
    """Return the ``stacklevel`` that shows the nearest line outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HOME):
        frame = frame.f_back
        level += 1
    return level
