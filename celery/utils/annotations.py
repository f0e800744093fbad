"""Look into type annotations of users' functions."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin


def is_none_type(value: Any) -> bool:
    """Say whether ``value`` is the type of ``None``."""
    return value is type(None)


def get_optional_arg(annotation: Any) -> Any:
    """Return ``T`` for ``Optional[T]`` or ``T | None``, and ``None`` for anything else."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    members = get_args(annotation)
    if len(members) != 2 or not any(map(is_none_type, members)):
        return None
    return next(member for member in members if not is_none_type(member))


def annotation_is_class(annotation: Any) -> bool:
    """Say whether the annotation is a class, and no alias such as ``list[int]``."""
    return isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias)


def annotation_issubclass(annotation: Any, cls: type) -> bool:
    """Say whether the annotation is a class derived from ``cls``."""
    return annotation_is_class(annotation) and issubclass(annotation, cls)
