"""Group: tasks that run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kombu.utils.functional import fxrange, is_list, maybe_list

from celery._state import current_app, get_current_worker_task
from celery.canvas.circles import circles_told
from celery.canvas.options import merged, stamped
from celery.canvas.signatures import Signature, as_signature, check_members, maybe_signature
from celery.result import allow_join_result
from celery.utils.text import remove_repeating_from_task

if TYPE_CHECKING:
    from celery.result import GroupResult

__all__ = ("batch_of", "group", "maybe_unroll_group")

#: Options of a group that are about the group, not about its members.
_OWN = ("task_id", "root_id", "parent_id", "group_id", "group_index", "chord")


def batch_of(app: Any) -> AbstractContextManager[Any]:
    """Return a context in which messages are collected and sent together, if the app can do that."""
    batch = getattr(app, "_batch", None)
    return batch() if batch is not None else nullcontext()


def maybe_unroll_group(group: Any) -> Any:
    """Return the only member of a group of one, or the group."""
    tasks = group["kwargs"]["tasks"]
    if len(tasks) != 1:
        return group
    only = maybe_signature(tasks[0], app=group._app)
    return maybe_unroll_group(only) if isinstance(only, _group_type()) else only


def _group_type() -> type[Signature]:
    return Signature.TYPES["group"]


def distinct(tasks: Iterable[Any]) -> list[Any]:
    """Return ``tasks`` as a list in which no object is found twice: each member will get an id of its own."""
    found, seen = [], set()
    for task in tasks:
        if id(task) in seen:
            task = task.clone() if isinstance(task, Signature) else dict(task)
        seen.add(id(task))
        found.append(task)
    return found


@Signature.register_type()
class group(Signature):
    """Tasks that run side by side; the result is a ``GroupResult``, the value a list in the order of the tasks.

    ``group(a, b)``, ``group([a, b])`` or ``group(generator)``, which is read at once.  A group within a group is
    its members.  What follows a group (``group | task``) makes it the header of a chord.
    """

    def __init__(self, *tasks: Any, **options: Any) -> None:
        app = options.pop("app", None)
        Signature.__init__(self, "celery.group", (), {"tasks": _members_from(tasks)}, options, app=app)
        self["subtask_type"] = "group"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> group:
        """Return the group that a mapping stands for; members that are mappings become signatures."""
        return cls._of(d, [maybe_signature(task, app=app, clone=True) for task in d["kwargs"]["tasks"]], app)

    @classmethod
    def _of(cls, d: Mapping[str, Any], tasks: list[Any], app: Any) -> group:
        new = cls(tasks, app=app)
        new["args"] = tuple(d.get("args") or ())
        new["kwargs"].update((key, value) for key, value in d["kwargs"].items() if key != "tasks")
        new["options"].update(d.get("options") or {})
        new["immutable"] = d.get("immutable", False)
        return new

    @property
    def tasks(self) -> Any:
        """The members."""
        return self["kwargs"]["tasks"]

    @tasks.setter
    def tasks(self, tasks: Any) -> None:
        self["kwargs"]["tasks"] = tasks

    @property
    def app(self) -> Any:
        app = self._app
        if app is None:
            tasks = self.tasks
            first = tasks[0] if tasks else None
            app = getattr(first, "_app", None) or getattr(first, "app", None)
        return app or current_app._get_current_object()

    def __len__(self) -> int:
        return len(self.tasks)

    # -- calling

    if TYPE_CHECKING:  # as Signature does it

        def delay(self, *partial_args: Any, **partial_kwargs: Any) -> GroupResult: ...  # type: ignore[override]

    def __call__(self, *partial_args: Any, **options: Any) -> GroupResult:  # type: ignore[override]
        """Send the members, with these arguments before their own."""
        return self.apply_async(partial_args, **options)

    def apply_async(  # type: ignore[override]  # Upstream: no `route_name`, others by position
        self,
        args: Any = None,
        kwargs: Any = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> GroupResult:
        """Send the members, together as far as the broker can; returns a ``GroupResult``.

        ``options`` go to every member, before its own.

        Raises:
            TypeError: ``link`` or ``link_error`` is given, which say not whether they mean one member or all.
        """
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        if not self.tasks:
            return self.freeze()
        return self._start(app, args, kwargs, add_to_parent, producer, options)

    def _start(
        self,
        app: Any,
        args: Any,
        kwargs: Any,
        add_to_parent: bool,
        producer: Any,
        options: dict[str, Any],
        before_sending: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Send the members; ``before_sending`` gets the result when all have their ids and none is sent."""
        args, kwargs, options = self._with_own(args, kwargs, options)
        group_id = options.pop("task_id", None) or str(uuid4())
        options.pop("group_id", None)
        options.pop("group_index", None)
        options.pop("add_to_parent", None)  # the body of a chord that is a member has it among its own
        chord = options.pop("chord", None)
        members = self._ready(app, args, kwargs)
        results = [
            member.freeze(group_id=group_id, root_id=options.get("root_id"), group_index=index)
            for index, member in enumerate(members)
        ]
        result = app.GroupResult(group_id, results, app=app)
        if before_sending is not None:
            before_sending(result)
        self._send(app, members, results, group_id, chord, producer, options)
        parent = get_current_worker_task()
        if add_to_parent and parent is not None:
            parent.add_trail(result)
        return result

    def _with_own(self, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Return arguments and options with those of the group itself."""
        own_args, own_kwargs = self["args"], own_kwargs_of(self)
        if self["immutable"]:
            args, kwargs = own_args, own_kwargs or kwargs
        else:
            args = (*(args or ()), *own_args) if own_args else args
            kwargs = {**own_kwargs, **(kwargs or {})} if own_kwargs else kwargs
        return args, kwargs, merged(self["options"], options)

    def _ready(self, app: Any, args: Any = None, kwargs: Any = None) -> list[Any]:
        """Return copies of all members, with ``args`` and ``kwargs`` added; nested groups dissolved."""
        with circles_told(self):
            return [member.clone(args, kwargs) for member in self._flat(app)]

    def _flat(self, app: Any) -> Iterator[Any]:
        """Yield all members, with those of nested groups in their place, as they are; a chain without steps is none."""
        for index, task in enumerate(self.tasks):
            task = as_signature(task, app, f"Item {index} of the group")
            if isinstance(task, group):
                for member in task._flat(app):
                    yield task._adopted(member)
            elif not _is_empty_chain(task):
                yield task

    def _adopted(self, member: Any) -> Any:
        """Return ``member`` with what this group, about to dissolve, would have given it."""
        options = {key: value for key, value in self["options"].items() if key not in _OWN}
        own_kwargs = own_kwargs_of(self)
        if not options and not self["args"] and not own_kwargs:
            return member
        new = member.clone(self["args"], own_kwargs)
        new["options"] = merged(options, new["options"])
        return new

    @staticmethod
    def _send(
        app: Any,
        members: list[Any],
        results: list[Any],
        group_id: str,
        chord: Any,
        producer: Any,
        options: dict[str, Any],
    ) -> None:
        bodies = [member["options"].get("chord") or chord for member in members]
        if any(body is not None for body in bodies):
            size = sum(map(part_count, members))
            if size:  # it must be known before the first member ends
                app.backend.set_chord_size(group_id, size)
        if producer is not None:
            options["producer"] = producer
        with nullcontext() if producer is not None else batch_of(app):
            for member, body, result in zip(members, bodies, results, strict=True):
                sent = member.apply_async(chord=body, add_to_parent=False, **options)
                if getattr(sent, "ignored", False):
                    result.ignored = True  # who waits for all need not wait for this one

    def apply(  # type: ignore[override]  # many results
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> GroupResult:
        """Run the members here, one after the other; returns a ``GroupResult`` of ``EagerResult``."""
        app = self.app
        if not self.tasks:
            return self.freeze()
        args, kwargs, options = self._with_own(args, kwargs, options)
        group_id = options.pop("task_id", None) or str(uuid4())
        for name in ("group_id", "chord", "root_id", "parent_id"):
            options.pop(name, None)
        members = self._ready(app, args, kwargs)
        for index, member in enumerate(members):
            member.freeze(group_id=group_id, group_index=index)
        with allow_join_result():
            return app.GroupResult(group_id, [member.apply(**options) for member in members], app=app)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give group and members their ids; returns the ``GroupResult``.  Nested groups are dissolved for good."""
        options, app = self["options"], self.app
        own_id = options.get("task_id")
        if own_id is None:
            own_id = options["task_id"] = _id or str(uuid4())
        if group_id:
            options["group_id"] = group_id
        if chord:
            options["chord"] = chord
        if group_index is not None:
            options["group_index"] = group_index
        root_id = options.setdefault("root_id", root_id)
        parent_id = options.setdefault("parent_id", parent_id)
        with circles_told(self):
            members = self.tasks = list(self._flat(app))
            results = [
                member.freeze(group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id, group_index=index)
                for index, member in enumerate(members)
            ]
        return app.GroupResult(own_id, results, app=app)

    _freeze = freeze

    # -- changes in place

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Have the members start one after the other, ``step`` seconds apart."""
        delays = fxrange(start, stop, step, repeatlast=True)
        for task in self.tasks:
            task.set(countdown=next(delays))
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Have the members ignore arguments that come later."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, sig: Any) -> Any:
        """Have ``sig`` called, without arguments of ours, when the *first* member succeeds.

        Upstream: there is no one result that it could get; ``group | sig`` waits for all.
        """
        if not self.tasks:
            raise IndexError("The group is empty: there is no task to link to.")
        callback = as_signature(sig, self._app, "What link got for the group", clone=True)
        return self.tasks[0].link(callback.set(immutable=True))

    def link_error(self, sig: Any) -> Any:
        """Have ``sig`` called for every member that fails."""
        return tuple(task.link_error(maybe_signature(sig, clone=True)) for task in self.tasks)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Write stamps on all members; see ``Signature.stamp``."""
        extra = visitor.on_group_start(self, **headers) if visitor is not None else None
        headers = stamped(headers, extra)
        self.stamp_links(visitor, append_stamps, **headers)
        self.tasks = [as_signature(task, self._app, "A member of the group") for task in self.tasks]
        with circles_told(self):
            for task in self.tasks:
                task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_group_end(self, **headers)
        return self

    def __repr__(self) -> str:
        if not self.tasks:
            return "group(<empty>)"
        return remove_repeating_from_task(str(self.tasks[0].get("task")), f"group({self.tasks!r})")


def _members_from(tasks: tuple[Any, ...]) -> list[Any]:
    """Return the members that ``group(*tasks)`` means.

    Raises:
        TypeError: one of them is no signature.
    """
    if len(tasks) == 1:
        only: Any = tasks[0]
        if isinstance(only, group):
            only = only.tasks
        elif isinstance(only, dict):
            only = [only]
        elif is_list(only, scalars=(dict, str)) or hasattr(only, "__next__"):
            only = list(only)
        else:
            only = list(maybe_list(only)) if not hasattr(only, "__iter__") else [only]
        tasks = tuple(only)
    check_members(tasks, "group")
    return distinct(tasks)


def own_kwargs_of(sig: Any) -> dict[str, Any]:
    """Return the arguments that a group or a chain was given for its tasks, by keyword."""
    return {key: value for key, value in sig["kwargs"].items() if key != "tasks"}


def _is_empty_chain(sig: Any) -> bool:
    return sig.get("subtask_type") == "chain" and not sig["kwargs"]["tasks"]


def part_count(sig: Any) -> int:
    """Return how many tasks will tell the body of a chord that they ended, for one member of its header."""
    seen = sig
    while True:
        kind, kwargs = seen.get("subtask_type"), seen.get("kwargs") or {}
        if kind == "group":
            return sum(map(part_count, kwargs["tasks"]))
        if _is_empty_chain(seen):
            return 0
        if kind == "chain":
            seen = kwargs["tasks"][-1]
        elif kind == "chord" and kwargs.get("body") is not None:
            seen = kwargs["body"]
        else:
            return 1
