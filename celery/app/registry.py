"""All tasks of an app, by name."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from celery._state import get_current_app
from celery.exceptions import InvalidTaskError, NotRegistered

__all__ = ("TaskRegistry",)


class TaskRegistry(dict[str, Any]):
    """Tasks by name; an unknown name raises ``NotRegistered``, which is a ``KeyError``."""

    NotRegistered: ClassVar[type[NotRegistered]] = NotRegistered

    def __missing__(self, key: str) -> Any:
        raise self.NotRegistered(key)

    def register(self, task: Any) -> None:
        """Add ``task``: a task object, or a class of which one is made.

        Raises:
            InvalidTaskError: it has no name.
        """
        if task.name is None:
            name = task.__name__ if inspect.isclass(task) else type(task).__name__
            raise InvalidTaskError(f"The task class {name!r} has no name: set its attribute `name`.")
        from celery.app.autoretry import add_autoretry_behaviour

        task = task() if inspect.isclass(task) else task
        add_autoretry_behaviour(task)
        self[task.name] = task

    def unregister(self, name: Any) -> None:
        """Remove a task, given by name or as such.

        Raises:
            NotRegistered: it is not here.
        """
        name = getattr(name, "name", name)
        try:
            del self[name]
        except KeyError:
            raise self.NotRegistered(name) from None

    # Upstream: periodic tasks were classes once; the answers remain.

    def regular(self) -> dict[str, Any]:
        return self.filter_types("regular")

    def periodic(self) -> dict[str, Any]:
        return self.filter_types("periodic")

    def filter_types(self, type: str) -> dict[str, Any]:
        """Return the tasks whose ``type`` is this."""
        return {name: task for name, task in self.items() if getattr(task, "type", "regular") == type}


# Pickled tasks name these two, also those that upstream peers send.


def _unpickle_task(name: str) -> Any:
    return get_current_app().tasks[name]


def _unpickle_task_v2(name: str, module: str | None = None) -> Any:
    if module is not None:
        __import__(module)
    return get_current_app().tasks[name]
