"""Tasks with pydantic models."""

from __future__ import annotations

import datetime
from typing import Optional

import pytest

from celery import Celery

pydantic = pytest.importorskip("pydantic")


class Point(pydantic.BaseModel):
    x: int
    when: Optional[datetime.datetime] = None  # noqa: UP045 - as users write it
    seen: Optional[str] = None  # noqa: UP045

    @pydantic.model_validator(mode="after")
    def look(self, info: pydantic.ValidationInfo):
        if info.context:
            self.seen = ",".join(sorted(info.context))
        return self


@pytest.fixture
def app():
    with Celery("test", set_as_current=False, fixups=[], broker="memory://") as app:
        yield app


def test_arguments_become_models_and_a_returned_model_plain_values(app):
    @app.task(shared=False, pydantic=True)
    def move(a: Point, b: Optional[Point] = None, c: int = 1, *rest, **more) -> Point:  # noqa: UP045
        assert isinstance(a, Point)
        assert b is None or isinstance(b, Point)
        return Point.model_construct(x=a.x + c)

    assert move({"x": "3"}, None, 4, 5, six={"x": 1}) == {"x": 7, "when": None, "seen": None}
    assert move(Point(x=3), b={"x": 1})["x"] == 4


def test_only_what_is_said_to_be_a_model_is_dumped(app):
    @app.task(shared=False, pydantic=True)
    def unsaid(a: Point):
        return a

    @app.task(shared=False, pydantic=True)
    def maybe(a: Point) -> Optional[Point]:  # noqa: UP045
        return a

    assert isinstance(unsaid({"x": 1}), Point)
    assert maybe({"x": 1})["x"] == 1


def test_dumping_takes_options_and_gives_what_json_has(app):
    @app.task(shared=False, pydantic=True, pydantic_dump_kwargs={"exclude_none": True})
    def echo(a: Point) -> Point:
        return Point.model_construct(x=a.x, when=a.when)

    assert echo({"x": 1, "when": "2026-01-01T00:00:00"}) == {"x": 1, "when": "2026-01-01T00:00:00"}


def test_validation_may_be_strict_and_sees_the_context(app):
    @app.task(shared=False, pydantic=True, pydantic_strict=True, pydantic_context={"mine": 1}, bind=True)
    def look(self, a: Point):
        return self.name, a.seen

    assert look({"x": 1}) == (look.name, "celery_app,celery_task_name,mine")
    with pytest.raises(pydantic.ValidationError):
        look({"x": "1"})


def test_callers_may_pass_models(app):
    @app.task(shared=False, pydantic=True, bind=True, name="take")
    def take(self, a: Point, b: Point = None, c=None):
        pass

    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue("celery")
        take.delay(Point(x=1), b=Point(x=2), c=3)
        message = queue.get(timeout=1)
        message.ack()
        plain = {"x": 1, "when": None, "seen": None}

        assert message.payload[:2] == [[plain], {"b": {**plain, "x": 2}, "c": 3}]
        queue.close()
