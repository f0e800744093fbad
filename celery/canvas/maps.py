"""Maps: one task for many arguments, run inside one task or in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from celery._state import current_app
from celery.canvas.groups import group
from celery.canvas.options import merged
from celery.canvas.signatures import Signature, as_signature, maybe_signature, task_name_from
from celery.utils.functional import chunks as _chunks

__all__ = ("_basemap", "chunks", "xmap", "xstarmap")


def _kept(it: Any) -> Any:
    """Return ``it`` as something that can be read again and written as JSON."""
    if not isinstance(it, Iterable):
        raise TypeError(f"What a task is mapped over is no iterable, but {type(it).__name__}: {it!r:.100}")
    return it if isinstance(it, (list, tuple)) else list(it)


def _call_of(task: Any) -> Any:
    """Return the signature of what is mapped: of a task, one without arguments."""
    if isinstance(task, str):
        return Signature(task)
    if hasattr(task, "apply_async") and not isinstance(task, dict):
        return task.s()
    return as_signature(task, None, "What is mapped")


class _basemap(Signature):
    """One task that calls another for each item of ``it``; later arguments are ignored."""

    _task_name: ClassVar[str]

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        app = options.pop("app", None)
        parts = {"task": _call_of(task), "it": _kept(it)}
        Signature.__init__(self, self._task_name, (), parts, options, immutable=True, app=app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Any:
        """Return the map that a mapping stands for."""
        parts = d["kwargs"]
        return cls(maybe_signature(parts["task"], app=app), parts["it"], app=app, **(d.get("options") or {}))

    def apply_async(  # type: ignore[override]  # Upstream: no `route_name`
        self, args: Any = None, kwargs: Any = None, **opts: Any
    ) -> Any:
        """Send the one task."""
        parts = {"task": self["kwargs"]["task"], "it": _kept(self["kwargs"]["it"])}
        return self.type.apply_async((), parts, **merged(self["options"], opts))


@Signature.register_type()
class xmap(_basemap):
    """``[task(x) for x in it]``, inside one task."""

    _task_name = "celery.map"

    def __repr__(self) -> str:
        return f"[{_name(self)}(x) for x in {_shown(self['kwargs']['it'])}]"


@Signature.register_type()
class xstarmap(_basemap):
    """``[task(*x) for x in it]``, inside one task."""

    _task_name = "celery.starmap"

    def __repr__(self) -> str:
        return f"[{_name(self)}(*x) for x in {_shown(self['kwargs']['it'])}]"


@Signature.register_type()
class chunks(Signature):
    """``[task(*x) for x in it]`` in portions of ``n``: a group of ``xstarmap``."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        app = options.pop("app", None)
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"chunks of {task_name_from(task)} cannot have {n!r:.20} calls each: give at least 1")
        parts = {"task": _call_of(task), "it": _kept(it), "n": n}
        Signature.__init__(self, "celery.chunks", (), parts, options, immutable=True, app=app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> chunks:
        """Return the chunks that a mapping stands for."""
        parts = d["kwargs"]
        return cls(
            maybe_signature(parts["task"], app=app), parts["it"], parts["n"], app=app, **(d.get("options") or {})
        )

    def __call__(self, **options: Any) -> Any:
        """Send all portions."""
        return self.apply_async(**options)

    def apply_async(  # type: ignore[override]  # Upstream: no `route_name`
        self, args: Any = None, kwargs: Any = None, **opts: Any
    ) -> Any:
        """Send all portions; returns a ``GroupResult``."""
        return self.group().apply_async((), None, **merged(self["options"], opts))

    def apply(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:
        """Run all portions here; returns a ``GroupResult``."""
        return self.group().apply((), None, **merged(self["options"], opts))

    def group(self) -> Any:
        """Return the group of portions."""
        parts = self["kwargs"]
        task = maybe_signature(parts["task"], app=self._app)
        return group(
            (xstarmap(task, part, app=self._app) for part in _chunks(iter(parts["it"]), parts["n"])), app=self._app
        )

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Any = None) -> Any:
        """Send ``task`` for ``it`` in portions of ``n``."""
        return cls(maybe_signature(task, app=app), it, n, app=app or current_app._get_current_object())()


def _name(sig: Any) -> str:
    return str(sig["kwargs"]["task"]["task"])


def _shown(it: Any) -> str:
    text = repr(it)
    return text if len(text) <= 100 else f"{text[:97]}..."
