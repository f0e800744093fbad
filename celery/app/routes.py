"""Which queue takes a task: routers are asked in order, the first answer wins.

A router is a map of names and patterns (:class:`MapRoute`), a function, an object with ``route_for_task``, or the
dotted path of one.  :class:`Router` asks them and fills in the queue.
"""

from __future__ import annotations

import fnmatch
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kombu import Queue

from celery.exceptions import QueueNotFound
from celery.utils.imports import symbol_by_name

__all__ = ("MapRoute", "Router", "expand_router_string", "prepare")


class MapRoute:
    """Routes from a mapping of task names, globs (``feeds.*``) or compiled patterns to a queue name or options."""

    def __init__(self, map: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        self.map: dict[str, Any] = {}
        self.patterns: OrderedDict[re.Pattern[str], Any] = OrderedDict()
        for key, route in map.items() if isinstance(map, Mapping) else map:
            if isinstance(key, re.Pattern):
                self.patterns[key] = route
            elif "*" in key:
                self.patterns[re.compile(fnmatch.translate(key))] = route
            else:
                self.map[key] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Return the options of the first match; an exact name goes before patterns."""
        if name in self.map:
            return _as_options(self.map[name])
        for pattern, route in self.patterns.items():
            if pattern.match(name):
                return _as_options(route)
        return None


def _as_options(route: Any) -> dict[str, Any]:
    return dict(route) if isinstance(route, Mapping) else {"queue": route}


class Router:
    """Asks ``routes`` where a task goes and turns queue names into queues."""

    def __init__(
        self,
        routes: Iterable[Any] | None = None,
        queues: Any = None,
        create_missing: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.queues: Any = {} if queues is None else queues
        self.routes: list[Any] = [] if routes is None else list(routes)
        self.create_missing = create_missing

    @property
    def is_static(self) -> bool:
        """Whether answers depend on nothing but the task's name, so that they can be kept."""
        return type(self) is Router and all(type(route) is MapRoute for route in self.routes)

    def route(
        self,
        options: Mapping[str, Any],
        name: str,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """Return ``options`` completed with what the routers say and with ``queue``, a queue object.

        What the caller gave goes before what a router says.

        Raises:
            QueueNotFound: the queue is not declared and must not be created.
        """
        options = self.expand_destination(options)
        answer = self.lookup_route(name, args, {} if kwargs is None else kwargs, options, task_type)
        if answer:
            options = _prefer(options, self.expand_destination(answer))
            if options.get("queue") or options.get("exchange"):
                return options
        elif options.get("queue"):
            # Upstream: options of the value None stay in this case only, so priority=None reaches the message.
            return options
        return _prefer(options, self.expand_destination(self.app.conf.task_default_queue))

    def expand_destination(self, route: Any) -> dict[str, Any]:
        """Return the options of ``route`` (a queue name or options), its queue name replaced by the queue."""
        if not isinstance(route, Mapping):
            route = {"queue": route}
        options = dict(route)
        queue = options.pop("queue", None)
        if queue:
            options["queue"] = queue if isinstance(queue, Queue) else self._find(queue)
        return options

    def _find(self, name: str) -> Queue:
        try:
            return self.queues[name]
        except KeyError:
            if self.create_missing:
                return self.queues.add(name)
            raise QueueNotFound(f"Queue {name!r} missing from task_queues")

    def lookup_route(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        options: Any = None,
        task_type: Any = None,
    ) -> Any:
        """Return the first answer of a router, or ``None``."""
        for router in self.routes:
            answer = self.query_router(router, name, args, kwargs, options, task_type)
            if answer is not None:
                return answer
        return None

    def query_router(self, router: Any, task: str, args: Any, kwargs: Any, options: Any, task_type: Any) -> Any:
        """Ask one router.  Upstream: an object is asked without options, a function gets them all."""
        ask = getattr(router, "route_for_task", None)
        if ask is not None:
            return ask(task, args, kwargs)
        return router(task, args, kwargs, options, task=task_type)


def _prefer(options: Mapping[str, Any], fallback: dict[str, Any]) -> dict[str, Any]:
    """Return ``fallback`` overlaid with every option that is not ``None``."""
    return {**fallback, **{name: value for name, value in options.items() if value is not None}}


def expand_router_string(router: Any) -> Any:
    """Return the router that a dotted path names; a class with ``route_for_task`` is made an instance."""
    router = symbol_by_name(router)
    if isinstance(router, type) and hasattr(router, "route_for_task"):
        return router()
    return router


def prepare(routes: Any) -> Iterable[Any]:
    """Return the list of routers that the setting ``task_routes`` stands for."""
    if routes is None:
        return ()
    if not isinstance(routes, (list, tuple)):
        routes = [routes]
    return [_as_router(route) for route in routes]


def _as_router(route: Any) -> Callable[..., Any]:
    if isinstance(route, (Mapping, list, tuple)):
        return MapRoute(route)
    if isinstance(route, str):
        return expand_router_string(route)
    return route
