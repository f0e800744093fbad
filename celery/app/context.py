"""What a running task knows about its own call: ``self.request``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kombu.utils.functional import maybe_list

__all__ = ("Context", "ignores_result")


class Context:
    """One request.  What the message does not say is found on the class, so making one is cheap.

    Unknown fields become attributes and are collected in ``headers``, unless these are given.
    """

    _children: list[Any] | None = None  # see `children`
    _protected = 0
    args: Any = None
    callbacks: Any = None
    called_directly = True
    chain: Any = None
    chord: Any = None
    correlation_id: str | None = None
    delivery_info: Any = None
    errbacks: Any = None
    eta: Any = None
    expires: Any = None
    group: str | None = None
    group_index: int | None = None
    headers: Any = None
    hostname: str | None = None
    id: str = None  # type: ignore[assignment]  # outside of a task, that is
    ignore_result: bool | None = False
    is_eager = False
    kwargs: Any = None
    logfile: Any = None
    loglevel: Any = None
    origin: str | None = None
    parent_id: str | None = None
    properties: Any = None
    retries = 0
    reply_to: str | None = None
    replaced_task_nesting = 0
    root_id: str | None = None
    shadow: str | None = None
    taskset: str | None = None  # older name of `group`
    timelimit: Any = None  # (hard, soft)
    time_limit: float | None = None
    soft_time_limit: float | None = None
    utc: bool | None = None
    stamped_headers: Any = None
    stamps: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = self.__dict__
        fields.update(*args, **kwargs)
        if fields.get("headers") is None:
            custom = fields.keys() - _OWN_FIELDS
            fields["headers"] = {name: fields[name] for name in custom} or None
        limits = fields.get("timelimit")
        if limits:
            fields["time_limit"], fields["soft_time_limit"] = limits

    def update(self, *args: Any, **kwargs: Any) -> None:
        return self.__dict__.update(*args, **kwargs)

    def clear(self) -> None:
        return self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)

    def __repr__(self) -> str:
        return f"<Context: {vars(self)!r}>"

    def as_execution_options(self) -> dict[str, Any]:
        """Return the options with which ``apply_async`` would make the same request again."""
        hard, soft = self.timelimit or (None, None)
        options = {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": {} if self.headers is None else self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
        }
        if self.stamps and self.stamped_headers is not None:
            stamps = self.stamps
            options["stamped_headers"] = self.stamped_headers
            options.update({name: stamps.get(name) for name in maybe_list(self.stamped_headers)})
        return options

    @property
    def children(self) -> list[Any]:
        """Results of the tasks that this one sent."""
        children = self._children
        if children is None:
            children = self._children = []
        return children


# What a task message carries by itself; the rest are the caller's own headers.
_OWN_FIELDS = frozenset(
    {name for name in vars(Context) if not name.startswith("__")}
    | {"task", "lang", "argsrepr", "kwargsrepr", "compression"}
)

Context.__module__ = "celery.app.task"


def ignores_result(task: Any, fields: Mapping[str, Any]) -> bool:
    """Whether nobody wants the result: what the message's ``fields`` say, else what the task says."""
    own = fields.get("ignore_result")
    return bool(task.ignore_result if own is None else own)
