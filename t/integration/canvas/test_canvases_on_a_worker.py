"""Canvases on a real worker give the values that they give in eager mode, and chords end, whatever happens inside.

The table is ``t/facts/canvas/programs.py``, the values are those that Celery 5.7.0 gave in eager mode.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from celery.exceptions import ChordError

HERE = Path(__file__).parent
FACTS = HERE.parents[1] / "facts" / "canvas"
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
RECORDED = json.loads((FACTS / "recorded.json").read_text())["canvas"]

pytestmark = pytest.mark.redis

#: Where a worker gives another value than Celery's eager mode did; why is told in the unit tests.
OTHER_VALUES = {
    "(add.s(2) | mul.s(3)).clone((1,))": 9,
    "group(add.s(2), add.s(3)).clone((1,))": [3, 4],
    "chord([add.s(2), add.s(4)], tsum.s()).clone((1,))": 8,
    "chain(group(add.s(1, 2)))": 3,
    "_chain(group(add.s(1, 2)), tsum.s())": None,  # fails: there is no list to sum
    "_chain(add.s(1, 2), group(add.s(1)), mul.s(3))": 12,
    "add.chunks([(1, 1), (2, 2), (3, 3)], 2)": [[2, 4], [6]],
    'stamped(add.chunks([(1, 1), (2, 2), (3, 3)], 2), stamp="v")': [[2, 4], [6]],
    "group(ignored.s(), add.s(1, 2))": [None, 3],
    "chord([ignored.s(), add.s(1, 2)], collect.s())": [[[1, 3]], {}],
    "chord([add.s(1, 2), replaced_group.s(3)], collect.s()) | collect.s()": [[[[[3, 9]], {}]], {}],
}

#: What ends with an error, and the error: a chord that hangs would be a timeout.
ENDINGS = {
    "fail.s()": ValueError,
    "chain(add.s(1, 2), fail.s(), add.s(4))": ValueError,
    "chain(fail.s(), group(add.s(1), add.s(2)), tsum.s())": ValueError,
    "group(add.s(1, 2) | fail.s(), add.s(1, 2))": ValueError,
    "chord([add.s(1, 2), fail.s()], tsum.s())": ChordError,
    "chord([add.s(1, 2), add.s(3, 4)], fail.s())": ValueError,
    "chord([fail.s(), add.s(1, 2)], tsum.s() | mul.s(2))": ChordError,
    "chord([fail.s(), add.s(1, 2)], chord([tsum.s()], tsum.s()))": ChordError,
    "chord([fail.s(), add.s(1, 2)], group(tsum.s(), collect.s()))": ChordError,
    "chord([fail.s(), add.s(1, 2)], tsum.s() | add.s(1) | group(add.s(1), add.s(2)))": ChordError,
    "chord([chain(add.s(1, 2), fail.s(), add.s(1)), add.s(1, 2)], tsum.s())": ChordError,
    "chord([chord([fail.s(), add.s(1, 2)], tsum.s()), add.s(1, 1)], tsum.s())": ChordError,
    "chord([chord([fail.s(), add.s(1, 2)], tsum.s() | mul.s(1)), add.s(1, 1)], tsum.s())": ChordError,
    "chord([chord([fail.s(), add.s(1, 2)], group(tsum.s(), tsum.s())), add.s(1, 1)], tsum.s())": ChordError,
    "chord([chord([chord([fail.s(), add.s(1, 2)], tsum.s()), add.s(1, 1)], tsum.s()), add.s(1, 1)], tsum.s())": ChordError,
    "chain(add.s(1, 1), chord([chain(add.s(1), fail.s(), add.s(1)), add.s(1)], tsum.s()), add.s(3))": ValueError,
}  # fmt: skip


def load_programs():
    spec = importlib.util.spec_from_file_location("canvas_programs", FACTS / "programs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


programs = load_programs()


def expected_values():
    for program in programs.lines(programs.CANVASES):
        recorded = RECORDED[program]["eager"]
        if program not in OTHER_VALUES and "value" in recorded and "add.chunks" not in program:
            yield program, recorded["value"]
    yield from OTHER_VALUES.items()


@pytest.fixture(scope="module", params=["redis", "filesystem", "database"])
def run(request, tmp_path_factory):
    """Send programs to a worker of their own, all at once; returns their results."""
    directory = tmp_path_factory.mktemp("canvas")
    prefix = f"canvas-{uuid.uuid4().hex[:10]}-"
    conf = {
        "broker_url": f"{REDIS}/9",
        "broker_transport_options": {"global_keyprefix": prefix},
        "result_backend": {
            "redis": f"{REDIS}/9",
            "filesystem": f"file://{directory}",
            "database": f"db+sqlite:///{directory}/results.db",
        }[request.param],
        "result_backend_transport_options": {"global_keyprefix": prefix} if request.param == "redis" else {},
        "result_chord_retry_interval": 0.2,
        "result_expires": 300,
    }
    worker = subprocess.Popen(
        [sys.executable, str(HERE / "canvasworker.py")],
        env={**os.environ, "CANVASWORKER_CONF": json.dumps(conf), "PYTHONPATH": str(HERE.parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    app = programs.make_app(**conf)
    names = programs.namespace(app)
    names.update({word.__name__: word for word in programs.WORDS})

    def send(table):
        return {program: eval(program, dict(names)).apply_async() for program in table}

    yield send
    worker.terminate()
    worker.wait(20)
    app.close()


def test_every_canvas_gives_its_value(run):
    expected = dict(expected_values())
    results = run([program for program, value in expected.items() if value is not None])

    wrong = {}
    for program, result in results.items():
        try:
            value = programs.Mask()(result.get(timeout=30))
        except Exception as error:
            value = error
        if value != expected[program]:
            wrong[program] = value
    assert wrong == {}
    assert len(results) > 180


def test_every_chord_ends(run):
    results = run(ENDINGS)

    found = {}
    for program, result in results.items():
        with pytest.raises((ChordError, ValueError)):
            result.get(timeout=30)
        last = result.results[0] if hasattr(result, "results") else result
        own = {"follow_parents": False} if program.startswith("chord(") else {}
        with pytest.raises((ChordError, ValueError)) as caught:
            last.get(timeout=30, **own)
        found[program] = type(caught.value)
    assert found == ENDINGS
