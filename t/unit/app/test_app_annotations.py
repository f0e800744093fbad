"""``task_annotations`` resolved for a task."""

from __future__ import annotations

import sys
import types

from celery import Celery
from celery.app.annotations import MapAnnotation, prepare, resolve_all


class Task:
    name = "a"


class OnlyForA:
    def annotate(self, task):
        return {"rate_limit": "1/s"} if task.name == "a" else None


def test_a_mapping_is_for_one_task_or_for_all():
    annotations = prepare({"*": {"x": 1}, "a": {"x": 2}})

    assert annotations == [MapAnnotation({"*": {"x": 1}, "a": {"x": 2}})]
    assert list(resolve_all(annotations, Task)) == [{"x": 2}, {"x": 1}]


def test_the_first_of_several_counts():
    annotations = prepare([{"b": {"x": 1}}, {"a": {"x": 2}}, {"a": {"x": 3}}])

    assert list(resolve_all(annotations, Task)) == [{"x": 2}]


def test_objects_and_dotted_paths_are_asked(monkeypatch):
    module = types.ModuleType("my_annotations")
    module.OnlyForA = OnlyForA
    monkeypatch.setitem(sys.modules, "my_annotations", module)

    for given in (OnlyForA(), "my_annotations.OnlyForA", (OnlyForA(),)):
        assert list(resolve_all(prepare(given), Task)) == [{"rate_limit": "1/s"}]


def test_no_annotations_are_none():
    assert prepare(None) == ()


def test_tasks_of_an_app_are_annotated():
    with Celery("test", set_as_current=False, fixups=[], task_annotations={"noted": {"rate_limit": "5/m"}}) as app:

        @app.task(shared=False, name="noted")
        def noted():
            pass

        assert noted.rate_limit == "5/m"
