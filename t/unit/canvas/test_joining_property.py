"""Random canvases of pure functions give what the functions give when called directly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery import Celery, chain, chord, group

MODULUS = 1_000_003


@pytest.fixture(scope="module")
def app():
    app = Celery("property", broker="memory://", backend="cache+memory://", set_as_current=False)

    def digest(value, salt):
        flat = value if isinstance(value, (list, tuple)) else [value]
        total = salt
        for item in flat:
            total = (total * 31 + (digest(item, 7) if isinstance(item, (list, tuple)) else item)) % MODULUS
        return total

    @app.task(shared=False, name="step")
    def step(value, salt):
        return digest(value, salt)

    app.step, app.digest = step, digest
    app.finalize()
    return app


# -- a canvas as plain data, so that it can be evaluated without any canvas


@dataclass(frozen=True)
class Step:
    salt: int

    def build(self, app: Any) -> Any:
        return app.step.s(self.salt)

    def value(self, app: Any, given: Any) -> Any:
        return app.digest(given, self.salt)


@dataclass(frozen=True)
class Chain:
    parts: tuple[Any, ...]
    by_operator: bool

    def build(self, app: Any) -> Any:
        built = [part.build(app) for part in self.parts]
        return reduce(lambda left, right: left | right, built) if self.by_operator else chain(*built)

    def value(self, app: Any, given: Any) -> Any:
        for part in self.parts:
            given = part.value(app, given)
        return given


@dataclass(frozen=True)
class Group:
    """Two members or more: a group of one within a chain is that one."""

    parts: tuple[Any, ...]

    def build(self, app: Any) -> Any:
        return group([part.build(app) for part in self.parts])

    def value(self, app: Any, given: Any) -> Any:
        values = []
        for part in self.parts:
            value = part.value(app, given)
            values.extend(value) if isinstance(part, Group) else values.append(value)
        return values


@dataclass(frozen=True)
class Chord:
    header: Group
    body: Any

    def build(self, app: Any) -> Any:
        return chord([part.build(app) for part in self.header.parts], self.body.build(app))

    def value(self, app: Any, given: Any) -> Any:
        return self.body.value(app, self.header.value(app, given))


steps = st.integers(1, 999).map(Step)


def deeper(inner: Any) -> Any:
    groups = st.lists(inner, min_size=2, max_size=3).map(lambda parts: Group(tuple(parts)))
    return st.one_of(
        st.builds(Chain, st.lists(inner, min_size=2, max_size=4).map(tuple), st.booleans()),
        groups,
        st.builds(Chord, groups, inner),
    )


canvases = deeper(st.one_of(steps, deeper(st.one_of(steps, deeper(st.one_of(steps, deeper(steps)))))))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(canvas=canvases, given_value=st.integers(0, 999))
def test_a_canvas_gives_what_its_functions_give(app, canvas, given_value):
    result = canvas.build(app).apply((given_value,))

    assert result.get(disable_sync_subtasks=False) == canvas.value(app, given_value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(canvas=canvases, given_value=st.integers(0, 999))
def test_a_canvas_that_travelled_as_json_gives_the_same(app, canvas, given_value):
    import json

    built = app.signature(json.loads(json.dumps(canvas.build(app))))

    assert built.apply((given_value,)).get(disable_sync_subtasks=False) == canvas.value(app, given_value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(canvas=canvases, given_value=st.integers(0, 999))
def test_a_canvas_that_was_frozen_gives_the_same(app, canvas, given_value):
    built = canvas.build(app)
    expected_id = built.freeze().id

    result = built.apply((given_value,))

    assert result.get(disable_sync_subtasks=False) == canvas.value(app, given_value)
    assert result.id == expected_id
