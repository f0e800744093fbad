"""Handles on results, once their canvas has ended on a worker, say and do what they do in Celery 5.7.0.

The table and how it is run are in ``t/facts/canvas/handles.py``, what Celery answered in ``handles.json``.
"""

from __future__ import annotations

import json

import pytest
from canvas_kit import OUTCOMES, REDIS, load

pytestmark = pytest.mark.redis

handles = load(OUTCOMES.with_name("handles.py"))
RECORDED = json.loads(OUTCOMES.with_name("handles.json").read_text())

#: (canvas, expression) → what ours says; why is above each.
DIFFERENT = {
    # the handle that the call gave knows which task it called
    (
        "add.s(1, 2)",
        "[r.parent, r.children, r.as_tuple(), r.as_list(), r.name, r.args, r.kwargs, r.retries, r.queue]",
    ): [None, [], [["<id-1>", None], None], ["<id-1>"], "add", None, None, None, None],
    # a callback gets what `get` returns, however the task ended and whoever looked before
    ("fail.s()", "called(lambda note: r.get(propagate=False, callback=note))"): [["<id-1>", "ValueError('no')"]],
    # `then` is told that the task has ended; it does not raise
    ("fail.s()", "called(lambda note: r.then(note))"): [["<id-1>"]],
    # a handle that was pickled can be waited with
    ("group(add.s(1, 1), add.s(2, 2), add.s(3, 3))", "pickle.loads(pickle.dumps(r)).get(timeout=5)"): [2, 4, 6],
    # all members have ended
    ("ident.s(1)", "called(lambda note: ResultSet([r], app=app).then(note))"): [[["<AsyncResult: <id-1>>"]]],
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    run = handles.outcomes.Run("redis/redis", tmp_path_factory.mktemp("handles"), f"{REDIS}/9", "")
    with run.worker():
        yield handles.said(run)
    run.app.close()


@pytest.mark.parametrize("canvas", RECORDED)
def test_a_handle_says_what_celery_says(answers, canvas):
    wanted = {
        expression: DIFFERENT.get((canvas, expression), recorded) for expression, recorded in RECORDED[canvas].items()
    }

    assert answers[canvas] == wanted


def test_every_difference_is_one():
    assert all(RECORDED[canvas][expression] != ours for (canvas, expression), ours in DIFFERENT.items())
    assert RECORDED.keys() == handles.rows().keys()
