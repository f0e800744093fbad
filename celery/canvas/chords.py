"""Chord: a group, and a body that gets the list of its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from celery._state import current_app
from celery.canvas.circles import circles_told
from celery.canvas.groups import group, part_count
from celery.canvas.options import merged, stamped
from celery.canvas.signatures import Signature, as_signature, check_members, maybe_signature
from celery.result import ResultSet, allow_join_result
from celery.utils.failpoints import is_active
from celery.utils.text import remove_repeating_from_task

__all__ = ("_chord", "chord", "set_parent")

#: Whether a test of the tests has switched this protection off.
_COPIES_BODIES = is_active("unprotect.body_once")

#: Options of a call that only the body gets, which stands for the chord in whatever it is part of.
_FOR_BODY = ("group_id", "group_index", "chord", "chain", "link", "link_error", "task_id")


@Signature.register_type("chord")
class _chord(Signature):
    """A header of tasks that run side by side, and a body that is called with the list of their results.

    The result is that of the body, with the header's ``GroupResult`` for parent.  If a member fails, the body fails
    with ``ChordError``, and its errbacks are called.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Any = None,
        kwargs: Any = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        if not isinstance(task, str):
            raise TypeError(f"A chord has one header and one body; a third was given: {task!r:.100}")
        parts = {"kwargs": kwargs or {}, "header": _header_from(header, app), "body": _body_from(body, app)}
        Signature.__init__(self, task, args, parts, options, app=app)
        self["subtask_type"] = "chord"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> _chord:
        """Return the chord that a mapping stands for."""
        parts = d["kwargs"]
        header = parts["header"]
        if isinstance(header, dict):
            header = maybe_signature(header, app=app, clone=True)
        else:
            header = [maybe_signature(task, app=app, clone=True) for task in header]
        body = maybe_signature(parts.get("body"), app=app, clone=True)
        new = cls([], body, d.get("task") or "celery.chord", d.get("args"), parts.get("kwargs"), app)
        new["kwargs"]["header"] = header
        new["options"].update(d.get("options") or {})
        new["immutable"] = d.get("immutable", False)
        return new

    @property
    def tasks(self) -> Any:
        """The header: a list of members, or a group."""
        return self["kwargs"]["header"]

    @tasks.setter
    def tasks(self, header: Any) -> None:
        self["kwargs"]["header"] = header

    @property
    def body(self) -> Any:
        return self["kwargs"].get("body")

    @body.setter
    def body(self, body: Any) -> None:
        self["kwargs"]["body"] = body

    def with_body(self, body: Any) -> _chord:
        """Return a copy with another body."""
        own, self["kwargs"]["body"] = self.body, None
        try:
            new: _chord = self.clone()
        finally:
            self["kwargs"]["body"] = own
        new.body = body
        return new

    def header_group(self) -> Any:
        """Make the header a group, if it is a list, and return it."""
        if not isinstance(self.tasks, group):
            self.tasks = group(self.tasks, app=self._app)
        return self.tasks

    @property
    def app(self) -> Any:
        return self._get_app(self.body)

    def _get_app(self, body: Any = None) -> Any:
        app = self._app
        if app is None:
            tasks = self.tasks["kwargs"]["tasks"] if isinstance(self.tasks, dict) else self.tasks
            candidates = [*tasks[:1], body]
            app = next((one._app for one in candidates if getattr(one, "_app", None) is not None), None)
        return app or current_app._get_current_object()

    # -- calling

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send the chord, with ``body`` for its body if given."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def apply_async(  # type: ignore[override]  # Upstream: no `route_name`, others by position
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        publisher: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        **options: Any,
    ) -> Any:
        """Send the header; returns the result of the body.

        ``args`` go to the members of the header, ``options`` to members and body, ``task_id`` is that of the body.
        """
        kwargs = dict(kwargs or {})
        body = self._given_body(kwargs.pop("body", None))
        given, args = args, self._given_args(args)
        app = self._get_app(body)
        options = merged(self["options"], options)
        options.pop("task_id", None)
        if app.conf.task_always_eager:
            with allow_join_result():
                return self.apply(given, kwargs, body=body, task_id=task_id, **options)
        producer = producer or publisher
        if producer is not None:
            options["producer"] = producer
        if connection is not None:
            options["connection"] = connection
        kwargs = {**self["kwargs"]["kwargs"], **kwargs}
        if "countdown" in options:
            options["header_delay"] = options["countdown"]
        return self.run(self.tasks, body, args, app=app, task_id=task_id, kwargs=kwargs, **options)

    def _given_body(self, body: Any) -> Any:
        body = self.body if body is None else body
        if body is None:
            raise TypeError(f"{self!r}: call it with a body, as in chord(header)(body), or use group(header)")
        return as_signature(body, self._app, "The body of the chord", clone=True)

    def _given_args(self, args: Any) -> Any:
        if self["immutable"] or not args:
            return self["args"]
        return (*args, *self["args"])

    def apply(
        self, args: Any = None, kwargs: Any = None, propagate: bool = True, body: Any = None, **options: Any
    ) -> Any:
        """Run header and body here; returns the result of the body.  What a member raises is raised."""
        body = self._given_body(body)
        for key in ("link", "link_error"):
            if options.get(key):
                body.extend_list_option(key, options[key])
        kwargs = {**self["kwargs"]["kwargs"], **(kwargs or {})}
        members = self._header_copy(self.tasks).apply(self._given_args(args), kwargs)
        values = members.get(propagate=propagate, disable_sync_subtasks=False)
        task_id = options.get("task_id")
        result = body.apply(args=(values,), **({"task_id": task_id} if task_id else {}))
        set_parent(result, members)
        return result

    def run(
        self,
        header: Any,
        body: Any,
        partial_args: Any,
        app: Any = None,
        interval: float | None = None,
        countdown: float | None = 1,
        max_retries: int | None = None,
        eager: bool = False,
        task_id: str | None = None,
        kwargs: Any = None,
        header_delay: float | None = None,
        **options: Any,
    ) -> Any:
        """Send ``header``, whose last member to end will have ``body`` called; returns the result of ``body``.

        ``interval``, ``countdown`` and ``max_retries`` are for ``celery.chord_unlock``, ``header_delay`` is the
        countdown of the members.
        """
        app = app or self._get_app(body)
        if eager:
            return self.apply(partial_args, kwargs, body=body)
        header = self._header_copy(header)
        group_id = header["options"].get("task_id") or str(uuid4())
        root_id = body["options"].get("root_id") or options.get("root_id")
        self._give_body(body, options)
        result = body.freeze(
            task_id,
            group_id=options.get("group_id") or group_id,
            chord=options.get("chord"),
            root_id=root_id,
            group_index=options.get("group_index"),
        )
        options = {key: value for key, value in options.items() if key not in _FOR_BODY}
        if not any(True for _ in header._flat(app)):
            empty = header.freeze(group_id)
            body.apply_async(([],), **_sending(options))
            set_parent(result, empty)
            return result
        if header_delay is not None:
            options["countdown"] = header_delay

        def announce(members: Any) -> None:
            if not _is_awaited(members):
                return
            app.backend.apply_chord(
                (members.id, members.results), body, interval=interval, countdown=countdown, max_retries=max_retries
            )

        own = options.pop("add_to_parent", True)
        producer = options.pop("producer", None)
        call = {"root_id": None, **options, "task_id": group_id, "chord": body}
        members = header._start(app, partial_args, kwargs, own, producer, call, announce)
        if not _is_awaited(members):  # all of them are chords whose bodies are empty groups: nobody will tell
            body.apply_async(([[] for _ in members.results],), **_sending(options))
        set_parent(result, members)
        return result

    @staticmethod
    def _give_body(body: Any, options: dict[str, Any]) -> None:
        """Pass options of the call on to the body; callbacks join those it has."""
        given = {key: value for key, value in options.items() if key not in ("parent_id", "producer", "connection")}
        for key in ("link", "link_error"):
            if given.get(key):
                body.extend_list_option(key, given[key])
            given.pop(key, None)
        if given.get("chain"):
            # Upstream: last comes first; what follows the chord comes after what follows its body
            given["chain"] = [*given["chain"], *(body["options"].get("chain") or ())]
        given.pop("task_id", None)
        body["options"].update(given)

    def _header_copy(self, header: Any) -> Any:
        """Return a copy of the header, as a group."""
        with circles_told(self):
            return self._copied(header)

    def _copied(self, header: Any) -> Any:
        if isinstance(header, group):
            return header.clone()
        return group(
            [as_signature(task, self._app, "A member of the chord", clone=True) for task in header], app=self._app
        )

    # -- copies and changes

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """Return a copy; header and body are copied too."""
        return Signature.clone(self, *args, **kwargs)

    def _cloned(self, args: Any, kwargs: Any, opts: dict[str, Any]) -> Any:
        new = super()._cloned(args, None, opts)
        if kwargs and not self["immutable"]:
            new["kwargs"]["kwargs"] = {**new["kwargs"]["kwargs"], **kwargs}
        return new

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give header and body their ids; returns the result of the body.

        Membership (``group_id``, ``chord``, ``group_index``) is the body's: it is the last to end.
        """
        header = self.header_group()
        with circles_told(self):
            # Upstream: each member of the header holds a copy of the body, and so on in bodies that are chords
            copies = {"chord": self.body} if _COPIES_BODIES else {}
            header_result = header.freeze(root_id=root_id, parent_id=parent_id, **copies)
        self["options"]["task_id"] = header_result.id
        if self.body is None:
            return header_result
        body = self._body_made_signature()
        with circles_told(self):
            result = body.freeze(_id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index)
        set_parent(result, header_result)
        return result

    _freeze = freeze

    def set_immutable(self, immutable: bool) -> None:
        """Have the members of the header ignore arguments that come later."""
        for task in _tasks_in(self.tasks):
            task.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Have ``callback`` called with the result of the body; returns it."""
        self._body_for(callback, "link").link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Have ``errback`` called if the body fails, which it does if a member of the header fails; returns it.

        With ``task_allow_error_cb_on_chord_header`` it is also called for each member that fails.
        """
        body = self._body_for(errback, "link_error")
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in _tasks_in(self.tasks):
                task.link_error(maybe_signature(errback, clone=True))
        body.link_error(errback)
        return errback

    def _body_for(self, callback: Any, how: str) -> Any:
        self._check_link(callback, how)
        if self.body is None:
            raise TypeError(f"{self!r}: give it a body first, for {how} is about the result of the body")
        return self._body_made_signature()

    def _body_made_signature(self) -> Any:
        """Return the body, which is a plain mapping where the chord came in a message; from now on it is none."""
        body = self.body = as_signature(self.body, self._app, "The body of the chord")
        return body

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Write stamps on header and, if there is a visitor, on body; see ``Signature.stamp``."""
        header = self.header_group()
        extra = visitor.on_chord_header_start(self, **headers) if visitor is not None else None
        headers = stamped(headers, extra)
        self.stamp_links(visitor, append_stamps, **headers)
        for task in header.tasks:
            as_signature(task, self._app, "A member of the chord").stamp(visitor, append_stamps, **headers)
        if visitor is None:
            return self
        visitor.on_chord_header_end(self, **headers)
        if self.body is not None:
            headers = stamped(headers, visitor.on_chord_body(self, **headers))
            body = self._body_made_signature()
            with circles_told(self):
                body.stamp(visitor, append_stamps, **headers)
        return self

    def __length_hint__(self) -> int:
        """Return how many tasks tell the body that they ended."""
        return sum(map(part_count, _tasks_in(self.tasks)))

    @classmethod
    def _descend(cls, sig_obj: Any) -> int:
        return part_count(sig_obj)

    def __repr__(self) -> str:
        body, header = self.body, _tasks_in(self.tasks)
        if body is None:
            return f"<chord without body: {header!r}>"
        if isinstance(body, Signature.TYPES["chain"]):
            first, *rest = [maybe_signature(task) for task in body["kwargs"]["tasks"]] or [body]
            shown = f"%({' | '.join([first.reprcall(header), *map(repr, rest)])})"
        else:
            first = maybe_signature(body)
            shown = f"%{first.reprcall(header)}"
        return remove_repeating_from_task(str(first.get("task")), shown)


chord = _chord


def _tasks_in(header: Any) -> Any:
    return header["kwargs"]["tasks"] if isinstance(header, dict) else header


def _header_from(header: Any, app: Any) -> list[Any]:
    """Return the members that ``chord(header)`` means.

    Raises:
        TypeError: one of them is no signature.
    """
    if isinstance(header, group):
        return _grouped(header)
    if isinstance(header, dict):
        return [maybe_signature(header, app=app)]
    if isinstance(header, str) or not isinstance(header, Iterable):
        as_signature(header, app, "The header of the chord")
    members = list(header)
    check_members(members, "header of the chord")
    return group(members).tasks  # type: ignore[no-any-return]


def _grouped(header: Any) -> list[Any]:
    while len(header.tasks) == 1 and isinstance(header.tasks[0], group):
        header = header.tasks[0]
    return list(header.tasks)


def _body_from(body: Any, app: Any) -> Any:
    return None if body is None else as_signature(body, app, "The body of the chord")


def _is_awaited(result: Any) -> bool:
    """Whether ``result`` is that of a task, or of a group that holds one somewhere."""
    return any(map(_is_awaited, result.results)) if isinstance(result, ResultSet) else True


def _sending(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the call of a body takes itself: the rest is among its options already."""
    return {key: options[key] for key in ("producer", "connection", "parent_id") if key in options}


def set_parent(result: Any, parent: Any) -> None:
    """Put ``parent`` before ``result``, which may have ancestors already."""
    while result.parent is not None and result.parent is not parent:
        result = result.parent
    result.parent = parent
