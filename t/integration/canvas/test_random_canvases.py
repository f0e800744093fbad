"""Random canvases of pure functions give, on a worker, what the functions give when called directly."""

from __future__ import annotations

import pytest
from canvas_kit import OUTCOMES, REDIS, load, outcomes
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.redis

pure = load(OUTCOMES.with_name("pure.py"))
COUNT = 40


def drawn(count, number):
    """Return ``count`` canvases, each with a value to begin with; always the same for the same ``number``."""
    found = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(canvas=pure.strategy(), value=st.integers(0, 999))
    def draw(canvas, value):
        found.append((canvas, value))

    draw()
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [1])
def test_a_canvas_gives_what_its_functions_give(tmp_path, number):
    run = outcomes.Run("redis/redis", tmp_path, f"{REDIS}/10", "")
    cases = drawn(COUNT, number)
    with run.worker():
        sent = [(canvas.build(run.app).apply_async((value,)), canvas, value) for canvas, value in cases]
        wrong = [
            (canvas, value, found)
            for result, canvas, value in sent
            if (found := result.get(timeout=90)) != canvas.value(value)
        ]
    run.app.close()

    assert wrong == []
    assert len(cases) >= COUNT / 2
