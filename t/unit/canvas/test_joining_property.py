"""Random canvases of pure functions give what the functions give when called directly."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery import Celery

spec = importlib.util.spec_from_file_location("canvas_pure", Path(__file__).parents[2] / "facts" / "canvas" / "pure.py")
pure = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pure)
canvases = pure.strategy()


@pytest.fixture(scope="module")
def app():
    app = Celery("property", broker="memory://", backend="cache+memory://", set_as_current=False)
    pure.add_task(app)
    app.finalize()
    return app


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(canvas=canvases, given_value=st.integers(0, 999))
def test_a_canvas_gives_what_its_functions_give(app, canvas, given_value):
    result = canvas.build(app).apply((given_value,))

    assert result.get(disable_sync_subtasks=False) == canvas.value(given_value)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(canvas=canvases, given_value=st.integers(0, 999))
def test_a_canvas_that_travelled_as_json_gives_the_same(app, canvas, given_value):
    built = app.signature(json.loads(json.dumps(canvas.build(app))))

    assert built.apply((given_value,)).get(disable_sync_subtasks=False) == canvas.value(given_value)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(canvas=canvases, given_value=st.integers(0, 999))
def test_a_canvas_that_was_frozen_gives_the_same(app, canvas, given_value):
    built = canvas.build(app)
    expected_id = built.freeze().id

    result = built.apply((given_value,))

    assert result.get(disable_sync_subtasks=False) == canvas.value(given_value)
    assert result.id == expected_id
