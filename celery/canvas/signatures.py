"""One call of one task: what to call, with which arguments and options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from uuid import uuid4

from kombu.utils.functional import maybe_list, reprcall

from celery._state import current_app
from celery.canvas.circles import circles_told, raise_if_circular
from celery.canvas.options import copied, merged, stamped, write_stamps
from celery.canvas.stamping import stamp_links
from celery.utils import abstract
from celery.utils.objects import getitem_property

if TYPE_CHECKING:
    from celery.result import AsyncResult, EagerResult

__all__ = (
    "Signature",
    "as_signature",
    "check_members",
    "maybe_signature",
    "maybe_subtask",
    "signature",
    "subtask",
    "task_name_from",
)


#: What the task returns; what another signature's task returns; a signature of any kind.
R = TypeVar("R")
Other = TypeVar("Other")
Sig = TypeVar("Sig", bound="Signature[Any]")


def task_name_from(task: Any) -> Any:
    """Return the name of a task that is given as itself or by name."""
    return getattr(task, "name", task)


#: What a mapping that stands for a signature may leave out.
_EMPTY = {"task": None, "args": (), "subtask_type": None, "immutable": False}


class Signature(dict[str, Any], Generic[R]):
    """A call that nobody has made yet: ``task``, ``args``, ``kwargs``, ``options``.

    It is a plain mapping, so it can be sent in a message and read by any worker; the attributes are views on it.
    Called with more arguments, those go before its own, unless it is ``immutable``.
    """

    #: Kinds of signatures by ``subtask_type``, which is how a mapping says what it stands for.
    TYPES: ClassVar[dict[str, type[Signature[Any]]]] = {}

    #: What ``a | b`` and ``chain(*tasks)`` are; set by ``joining``, which knows the classes above this one.
    _join: ClassVar[Callable[[Any, Any], Any]]
    _join_all: ClassVar[Callable[..., Any]]

    _app: Any = None
    _type: Any = None

    #: Name of the task.
    task = getitem_property("task")
    args = getitem_property("args")
    kwargs = getitem_property("kwargs")
    #: Options for ``apply_async``.
    options = getitem_property("options")
    #: Which canvas this is; None for a task.
    subtask_type = getitem_property("subtask_type")
    #: Whether arguments that come later are ignored.
    immutable = getitem_property("immutable")
    #: Id that the task will have, once frozen.
    id = getitem_property("options.task_id")
    parent_id = getitem_property("options.parent_id")
    root_id = getitem_property("options.root_id")

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[type], type]:
        """Return a decorator that makes a class stand for mappings whose ``subtask_type`` is ``name``."""

        def register(kind: Any) -> Any:
            cls.TYPES[name or kind.__name__] = kind
            return kind

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """Return the signature that a mapping stands for, of the class registered for its type."""
        kind = d.get("subtask_type")
        if kind:
            target = cls.TYPES.get(kind)
            if target is None:
                known = ", ".join(sorted(cls.TYPES))
                raise KeyError(
                    f"{kind!r} is no kind of canvas; known are {known}, and what Signature.register_type adds"
                )
            if target is not cls:
                return target.from_dict(d, app=app)
        return Signature(d, app=app)

    def __init__(
        self,
        task: Any = None,
        args: Any = None,
        kwargs: Any = None,
        options: Any = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if isinstance(task, dict):
            dict.__init__(self, {**_EMPTY, "kwargs": {}, "options": {}, **task})
            return
        if type is not None:
            self._type = type
        elif task is not None and not isinstance(task, str):
            self._type = task
        dict.__init__(
            self,
            task=task_name_from(task),
            args=tuple(args or ()),
            kwargs=kwargs or {},
            options=dict(options or {}, **ex),
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # -- calling

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> R:
        """Call the task here and now, as a plain function."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, None)
        return self.type(*args, **kwargs)  # type: ignore[no-any-return]

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """Send the task, with these arguments before its own."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> EagerResult[R]:
        """Run the task here."""
        args, kwargs, options = self._merge(args, kwargs, options)
        if options.get("link") or options.get("link_error"):
            raise_if_circular(self)
        return self.type.apply(args, kwargs, **options)  # type: ignore[no-any-return]

    def apply_async(
        self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send the task; ``options`` are those of ``Task.apply_async``, and go before its own."""
        args, kwargs, options = self._merge(args, kwargs, options)
        if route_name is not None:
            options["route_name"] = route_name
        return self._apply_async(args, kwargs, **options)  # type: ignore[no-any-return]

    @property
    def _apply_async(self) -> Callable[..., Any]:
        try:
            return self.type.apply_async  # type: ignore[no-any-return]
        except KeyError:  # a task that only workers know
            name, send_task = self["task"], self.app.send_task
            if not name:
                raise TypeError(f"{dict(self)!r:.200} names no task, so there is nothing to send") from None
            return lambda args, kwargs, **options: send_task(name, args, kwargs, **options)

    def election(self) -> AsyncResult[R]:
        """Have exactly one of the workers that listen run the task; returns its result."""
        kind, app = self.type, self.app
        task_id = self.options.get("task_id") or str(uuid4())
        with app.producer_or_acquire(None) as producer:
            chosen = self.clone(task_id=task_id, **kind._get_exec_options())
            app.control.election(task_id, "task", chosen, connection=producer.connection)
            return kind.AsyncResult(task_id)  # type: ignore[no-any-return]

    # -- copies

    def _merge(
        self, args: Any = None, kwargs: Any = None, options: Any = None, force: bool = False
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Return arguments and options with the given ones added."""
        own = self["options"]
        options = merged(own, options) if options else dict(own)
        if self["immutable"] and not force:
            return self["args"], self["kwargs"], options
        return (
            (*args, *self["args"]) if args else self["args"],
            {**self["kwargs"], **kwargs} if kwargs else self["kwargs"],
            options,
        )

    def clone(self: Sig, args: Any = None, kwargs: Any = None, **opts: Any) -> Sig:
        """Return a copy, with arguments and options added if any are given."""
        try:
            return self._cloned(args, kwargs, opts)  # type: ignore[no-any-return]
        except RecursionError:
            raise_if_circular(self)
            raise

    def _cloned(self, args: Any, kwargs: Any, opts: dict[str, Any]) -> Any:
        if args or kwargs or opts:
            args, kwargs, options = self._merge(args or (), kwargs or {}, opts)
        else:
            args, kwargs, options = self.get("args") or (), self.get("kwargs") or {}, self.get("options") or {}
        new = dict.__new__(Signature)
        new.update(
            task=self.get("task"),
            args=tuple(args),
            kwargs={**kwargs},
            options=copied(options) if options else {},
            subtask_type=self.get("subtask_type"),
            immutable=self.get("immutable", False),
        )
        return self._as_clone(new)

    def _as_clone(self, new: Signature[Any]) -> Any:
        if new["subtask_type"]:
            new = self.from_dict(new, app=self._app)
        new._app = self._app
        new._type = self._type
        return new

    partial = clone

    def replace(self: Sig, args: Any = None, kwargs: Any = None, options: Any = None) -> Sig:
        """Return a copy with arguments or options exchanged for the given ones."""
        new = self.clone()
        if args is not None:
            new.args = args
        if kwargs is not None:
            new.kwargs = kwargs
        if options is not None:
            new.options = options
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = copy = self.clone()
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        # Upstream: pickled as a call of this function
        return signature, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    # -- changes in place

    def set(self: Sig, immutable: bool | None = None, **options: Any) -> Sig:
        """Set options, and return itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self["options"].update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add ``value`` to the list in option ``key`` unless it is there; returns it."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add one or many values to the list in option ``key``."""
        self._list_option(key).extend(maybe_list(value))

    def _list_option(self, key: str) -> list[Any]:
        options = self["options"]
        items = options.get(key)
        if not isinstance(items, list):
            items = options[key] = [] if items is None else list(maybe_list(items))
        return items

    def link(self, callback: Any) -> Any:
        """Have ``callback`` called with the result if the task succeeds; returns it."""
        self._check_link(callback, "link")
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Have ``errback`` called if the task fails; returns it."""
        self._check_link(errback, "link_error")
        return self.append_to_list_option("link_error", errback)

    def _check_link(self, callback: Any, how: str) -> None:
        if callback is self:
            raise ValueError(
                f"{self!r} cannot {how} itself: it would go on for ever. Link a copy: sig.{how}(sig.clone())"
            )
        if not isinstance(callback, str):  # a task by name
            as_signature(callback, None, f"What {how} got for {self['task']}")

    def on_error(self: Sig, errback: Any) -> Sig:
        """Do ``link_error`` and return itself."""
        self.link_error(errback)
        return self

    # -- identity

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> AsyncResult[R]:
        """Give the task its id, and return the result it will have.

        An id that was given before stays.  ``group_id`` and ``group_index`` say of which group it is a member,
        ``chord`` is the body that waits for it.
        """
        options = self["options"]
        task_id = options.get("task_id")
        if task_id is None:
            task_id = options["task_id"] = _id or str(uuid4())
        if root_id:
            options["root_id"] = root_id
        if parent_id:
            options["parent_id"] = parent_id
        if "reply_to" not in options:
            options["reply_to"] = self.app.thread_oid
        if group_id and "group_id" not in options:
            options["group_id"] = group_id
        if chord:
            options["chord"] = chord
        if group_index is not None:
            options["group_index"] = group_index
        result = self.AsyncResult(task_id)
        if self._ignores_result():
            result.ignored = True  # there is nothing to wait for
        return result  # type: ignore[no-any-return]

    _freeze = freeze

    def _ignores_result(self) -> bool:
        own = self["options"].get("ignore_result")
        if own is None and self._type is not None:
            own = getattr(self._type, "ignore_result", None)
        return bool(own)

    @property
    def AsyncResult(self) -> Any:
        try:
            return self.type.AsyncResult
        except KeyError:  # a task that only workers know
            return self.app.AsyncResult

    @property
    def app(self) -> Any:
        """The app it was made with, or the current one."""
        return self._app or current_app._get_current_object()

    @property
    def type(self) -> Any:
        """The task; KeyError (``NotRegistered``) if this process does not know it."""
        if self._type is None:
            self._type = self.app.tasks[self["task"]]
        return self._type

    @property
    def name(self) -> Any:
        # Upstream: part of the abstract signature
        return self.get("task")

    # -- stamps

    def stamp(self: Sig, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Sig:
        """Write stamps on the task and what is linked to it: ``headers``, and what ``visitor`` returns; returns itself.

        A stamp that is there already is overwritten; with ``append_stamps`` the values are kept together in a list.
        """
        with circles_told(self):
            self.stamp_links(visitor, append_stamps, **headers)
        extra = visitor.on_signature(self, **headers) if visitor is not None else None
        write_stamps(self["options"], stamped(headers, extra), append_stamps)
        return self

    def stamp_links(self, visitor: Any, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp callbacks and errbacks."""
        stamp_links(self, visitor, append_stamps, headers, maybe_signature)

    # -- what it leads to

    def flatten_links(self) -> list[Any]:
        """Return itself and all callbacks, and theirs, in the order in which they are linked."""
        found, waiting = [], [self]
        while waiting:
            current = waiting.pop()
            found.append(current)
            links = maybe_list(current["options"].get("link")) or []
            waiting.extend(maybe_signature(link, self._app) for link in reversed(links))
        return found

    # -- joining

    def __or__(self, other: Signature[Other]) -> Signature[Other]:  # type: ignore[override]  # no union of mappings
        """Return the workflow in which ``other`` follows, with the result of this; see ``joining``."""
        return Signature._join(self, other)  # type: ignore[no-any-return]

    def __ror__(self, other: Any) -> Any:
        return Signature._join(other, self)

    def __ior__(self, other: Any) -> Any:  # type: ignore[override, misc]
        # a plain mapping would take the other's items in
        return Signature._join(self, other)

    def __invert__(self) -> R:
        """Send it and wait for the value."""
        return self.apply_async().get()

    # -- as text

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return the call as it would be written, with these arguments added."""
        args, kwargs, _ = self._merge(args, kwargs, {}, force=True)
        return str(reprcall(self["task"], args, kwargs))

    def __repr__(self) -> str:
        return self.reprcall()


def signature(varies: Any, *args: Any, **kwargs: Any) -> Any:
    """Return a signature: of a task and arguments, a copy of a signature, or what a mapping stands for."""
    if isinstance(varies, dict):
        if isinstance(varies, abstract.CallableSignature):
            return varies.clone()
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


subtask = signature


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Return a signature for a mapping; a signature itself, or a copy with ``clone``; anything else as it is."""
    if isinstance(d, abstract.CallableSignature):
        if clone:
            d = d.clone()
    elif isinstance(d, dict):
        d = signature(d)
    else:
        return d
    if app is not None:
        d._app = app
    return d


maybe_subtask = maybe_signature


def as_signature(item: Any, app: Any, place: str, clone: bool = False) -> Any:
    """Return ``item`` as a signature.

    Raises:
        TypeError: it is none; ``place`` tells where it was found.
    """
    if isinstance(item, dict) and not item.get("task"):
        raise TypeError(f"{place} is no signature, but a mapping without a task: {dict(item)!r:.100}")
    sig = maybe_signature(item, app=app, clone=clone)
    if isinstance(sig, abstract.CallableSignature):
        return sig
    if hasattr(item, "apply_async") and hasattr(item, "s"):
        raise TypeError(f"{place} is the task {item.name}, not a call of it. Write {_short(item.name)}.s(...)")
    raise TypeError(f"{place} is no signature, but {type(item).__name__}: {item!r:.100}. Make one with task.s(...)")


def check_members(items: Iterable[Any], where: str) -> None:
    """Raise TypeError for the first of ``items`` that is no signature, nor a mapping that stands for one."""
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not item.get("task"):
            as_signature(item, None, f"Item {index} of the {where}")


def _short(name: str) -> str:
    return name.rpartition(".")[2]


abstract.CallableSignature.register(Signature)
