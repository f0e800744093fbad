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


def test_any_number_of_models(app):
    @app.task(shared=False, pydantic=True)
    def total(first: int, *rest: Point, **more: Point):
        return first + sum(point.x for point in (*rest, *more.values()))

    assert total(1, {"x": 2}, {"x": 3}, six={"x": 6}) == 12
    with pytest.raises(pydantic.ValidationError):
        total(1, 2)
    assert sent(total, 1, Point(x=2), six=Point(x=6)) == (
        [1, {"x": 2, "when": None, "seen": None}],
        {"six": {"x": 6, "when": None, "seen": None}},
    )


def sent(task, *args, **kwargs):
    """Send a call over the broker in memory, and return the arguments that a worker would get."""
    with task.app.connection_for_read() as connection:
        queue = connection.SimpleQueue(task.app.amqp.default_queue)
        task.delay(*args, **kwargs)
        args, kwargs, _ = queue.get(timeout=5).payload
    return args, kwargs


def test_a_model_of_another_class_is_sent_for_the_task_to_judge(app):
    class Wider(pydantic.BaseModel):
        x: int = 1
        extra: int = 2

    @app.task(shared=False, pydantic=True)
    def take(a: Point, b: Optional[Point] = None):  # noqa: UP045
        return a.x

    assert sent(take, Wider(), b=None) == ([{"x": 1, "extra": 2}], {"b": None})


def test_what_is_no_model_says_why_in_words_that_travel(app):
    @app.task(shared=False, pydantic=True)
    def take(a: Point):
        return a.x

    with pytest.raises(pydantic.ValidationError) as caught:
        take({"y": 1})
    assert "Field required" in caught.value.args[0]
    assert take.apply(({"x": "no"},)).state == "FAILURE"


def test_lists_unions_and_names_that_are_nowhere_are_left_alone(app):
    @app.task(shared=False, pydantic=True)
    def take(a: list[Point], b: Point | int, c: Nowhere):  # noqa: F821
        return a, b, c

    assert take([{"x": 1}], {"x": 2}, {"x": 3}) == ([{"x": 1}], {"x": 2}, {"x": 3})
