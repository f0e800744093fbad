"""``task_annotations``: attributes of tasks, set from the configuration.

An annotation is a mapping ``{task name or "*": {attribute: value}}``, or an object (or the dotted path of its class)
with a method ``annotate(task)``, and perhaps ``annotate_any()``, that returns ``{attribute: value}`` or ``None``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery.utils.functional import firstmethod
from celery.utils.imports import instantiate

__all__ = ("MapAnnotation", "prepare", "resolve_all")

_first_for_task = firstmethod("annotate")
_first_for_any = firstmethod("annotate_any")


class MapAnnotation(dict[str, Any]):
    """A mapping as an annotation."""

    def annotate_any(self) -> dict[str, Any] | None:
        """Return what is for all tasks."""
        found = self.get("*")
        return None if found is None else dict(found)

    def annotate(self, task: Any) -> dict[str, Any] | None:
        """Return what is for ``task`` alone."""
        found = self.get(task.name)
        return None if found is None else dict(found)


def prepare(annotations: Any) -> tuple[Any, ...] | list[Any]:
    """Turn the setting, one annotation or several, into objects that can be asked."""
    if annotations is None:
        return ()
    if not isinstance(annotations, (list, tuple)):
        annotations = (annotations,)
    return [_prepared(annotation) for annotation in annotations]


def _prepared(annotation: Any) -> Any:
    if isinstance(annotation, dict):
        return MapAnnotation(annotation)
    if isinstance(annotation, str):
        from celery.utils.functional import mlazy

        return mlazy(instantiate, annotation)
    return annotation


def resolve_all(anno: Any, task: Any) -> Iterator[dict[str, Any]]:
    """Yield the first set of attributes for ``task``, then the first for all tasks."""
    return (found for found in (_first_for_task(anno, task), _first_for_any(anno)) if found)
