"""Canvases give what Celery 5.7.0 gives: shape, ids, messages, values.

``t/facts/canvas/programs.py`` holds the programs and how they are run; ``recorded.json`` is what it wrote with
Celery 5.7.0.  Where we differ on purpose, ``DIFFERENT`` says why.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

FACTS = Path(__file__).parents[2] / "facts" / "canvas"


def load_programs():
    spec = importlib.util.spec_from_file_location("canvas_programs", FACTS / "programs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


programs = load_programs()
RECORDED = json.loads((FACTS / "recorded.json").read_text())

ORDER = "members of nested groups keep their order and have indices of their own; Celery turns or repeats them"
OWN_ARGS = "arguments given to clone() of a canvas are used"
TASK_IN_MAP = "xmap(task) takes the task itself, too"
READ_AT_ONCE = "a generator is read when the group is built, so that its repr shows it"
CHUNKS = "chunks run eagerly, with their stamps"
ROOT = "a chord made of a group in a chain has no option root_id=None"
PARENT = "a parent_id that is given to a chain reaches its first task"
FOR_UNLOCK = "interval and max_retries are no options of the body"
ONE_OF_GROUP = "a group of one in a chain is that one in eager mode, as it is in a worker"
NOTHING_FOLLOWS = "an empty group at the end of a chain is no step"
ERRBACK_OPTION = "an errback on a header has no option immutable=True"
BY_LINK = "protocol 1: a chord in a chain carries what follows by link only"
WHOLE = "a mapping with fields left out becomes a whole signature"
CLEAR = "a clear error where Celery stumbles later"
BODY_BY_JOINING = "a chord without body takes what is joined to it for its body"
FAITHFUL = "a deep copy is a signature"
FROM_THE_MEMBER = "the last step of a chain that is the body of a chord gets its chord when it is sent"
INNER_IDS = "the header of a chord within a header is sent under the id that was told to celery.chord_unlock"

NESTED = (
    "chain(add.s(1, 1), group(group(add.s(1), add.s(2)), add.s(3)), collect.s())",
    "chord([group(add.s(1, 2), add.s(3, 4)), add.s(5, 6)], collect.s())",
    "errored(group(add.s(1, 2), group(add.s(3, 4), add.s(1, 1))), errback.s())",
    "group(add.s(1, 2), group(add.s(3, 4), add.s(5, 6)))",
    "group(add.s(1, 2), group(add.s(3, 4), add.s(5, 6))) | collect.s()",
    "group(add.s(1, 2), group(add.s(3, 4), group(add.s(5, 6), chain(add.s(1, 1), mul.s(2)))))",
    "group(group(add.s(1, 1)), group(group(add.s(2, 2))))",
    "group(group(add.s(1, 2), add.s(3, 4)), group(add.s(5, 6), add.s(7, 8)))",
)
UNJOINED = (
    "_chain(_chain(add.s(1, 2), mul.s(2)), _chain(add.s(1), group(add.s(1), add.s(2))), tsum.s())",
    "_chain(add.s(1, 2), group(add.s(1), add.s(2)), tsum.s())",
    "_chain(group(add.s(1, 2), add.s(2, 2)), tsum.s(), mul.s(2))",
)

#: (table, program) → why ours is another; "*" is any table.
DIFFERENT = {
    **{("*", program): ORDER for program in NESTED},
    **{(table, program): ROOT for program in UNJOINED for table in ("frozen", "sent", "protocol_1")},
    ("*", "(add.s(2) | mul.s(3)).clone((1,))"): OWN_ARGS,
    ("*", "group(add.s(2), add.s(3)).clone((1,))"): OWN_ARGS,
    ("*", "chord([add.s(2), add.s(4)], tsum.s()).clone((1,))"): OWN_ARGS,
    ("*", "xmap(double, [1, 2])"): TASK_IN_MAP,
    ("*", "chain(add.s(1, 2), xmap(double, [1, 2]))"): TASK_IN_MAP,
    ("shape", "chord([xmap(double.s(), [1, 2]), add.s(5, 6)], collect.s())"): TASK_IN_MAP,
    ("shape", "add.chunks(((i, i) for i in range(5)), 2).group()"): READ_AT_ONCE,
    ("shape", "add.chunks([(1, 1), (2, 2), (3, 3)], 2).group()"): READ_AT_ONCE,
    ("shape", "add.chunks([(1, 1), (2, 2), (3, 3)], 2).group() | collect.s()"): READ_AT_ONCE,
    ("shape", "chord((add.s(i, i) for i in range(3)), tsum.s())"): READ_AT_ONCE,
    ("shape", "group(add.s(i, i) for i in range(3))"): READ_AT_ONCE,
    ("eager", "add.chunks([(1, 1), (2, 2), (3, 3)], 2)"): CHUNKS,
    ("*", "signature(json.loads(json.dumps(add.chunks([(1, 1), (2, 2), (3, 3)], 2))), app=app)"): CHUNKS,
    ("*", 'stamped(add.chunks([(1, 1), (2, 2), (3, 3)], 2), stamp="v")'): CHUNKS,
    ("*", "_chain(add.s(1, 2), group(add.s(1)), mul.s(3))"): ONE_OF_GROUP,
    ("*", "_chain(group(add.s(1, 2)), tsum.s())"): ONE_OF_GROUP,
    ("*", "chain(group(add.s(1, 2)))"): ONE_OF_GROUP,
    ("frozen", "add.s(1, 1) | group([])"): NOTHING_FOLLOWS,
    ("frozen", "chord([add.s(1, 2)], tsum.s()) | tsum.si([1]) | group(add.s(1), add.s(2)) | tsum.s()"): ROOT,
    ("*", "chord([add.s(1, 2), add.s(3, 4)], body=tsum.s(), interval=0.5, max_retries=3)"): FOR_UNLOCK,
    (
        "*",
        "chord([chain(group(add.s(1, 2), add.s(3, 4)), tsum.s(), mul.s(3)), add.s(5, 6)], collect.s())",
    ): FROM_THE_MEMBER,
    **{
        ("protocol_1", program): BY_LINK
        for program in (
            "_chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s() | mul.s(2)), mul.s(3))",
            "chain(add.s(1, 1), group(chain(add.s(1), mul.s(2)), add.s(2)), tsum.s())",
            "chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), chord([add.s(1), add.s(2)], tsum.s()))",
            "chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), group(add.s(1), add.s(2)))",
            "chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), group(add.s(1), add.s(2)), tsum.s())",
            "chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), mul.s(3))",
            "chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s() | mul.s(2)))",
            "chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s()))",
            "chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s()), group(add.s(1)))",
            "chord([chain(add.s(1, 2), group(add.s(3), add.s(4)), tsum.s()), add.s(5, 6)], collect.s())",
            "chain(group(add.s(1, 1), add.s(2, 2)), tsum.s(), mul.s(2))",
        )
    },
    **{
        ("unlock", program): INNER_IDS
        for program in (
            "chord([chain(add.s(1, 2), group(add.s(3), add.s(4)), tsum.s()), add.s(5, 6)], collect.s())",
            "chord([chord([add.s(1, 2), add.s(3, 4)], tsum.s()), add.s(5, 6)], tsum.s())",
            "chord([chord([chord([add.s(1, 2), add.s(3, 4)], tsum.s()), add.s(5, 6)], tsum.s()), add.s(1, 1)], tsum.s())",
            "chord([group(add.s(1, 2), add.s(3, 4)) | tsum.s(), add.s(5, 6)], collect.s())",
            "signature(json.loads(json.dumps(chord([chord([add.s(1, 2)], tsum.s()), add.s(5, 6)], tsum.s()))), app=app)",
        )
    },
    (
        "call",
        '(add.s(2) | mul.s(3)).apply_async((1,), root_id="r", parent_id="p", group_id="g", group_index=2)',
    ): PARENT,
    (
        "call",
        'chord([add.s(1, 2) | mul.s(2), add.s(3, 4)], tsum.s()).apply_async(root_id="r", parent_id="p", queue="q")',
    ): PARENT,
    ("value", 'Signature({"task": "add", "args": (1,)})'): WHOLE,
    ("value", 'Signature.from_dict({"task": "add", "args": [1], "options": {"queue": "q"}})'): WHOLE,
    ("value", 'Signature.from_dict({"task": "add"})'): WHOLE,
    (
        "value",
        'Signature.from_dict({"task": "celery.chain", "kwargs": {"tasks": [dict(add.s(1, 1))]}, "subtask_type": "chain"})',
    ): WHOLE,
    (
        "value",
        'Signature.from_dict({"task": "celery.group", "kwargs": {"tasks": [dict(add.s(1, 1))]}, "subtask_type": "group"})',
    ): WHOLE,
    ("value", 'repr(signature({"task": "add", "args": [1], "kwargs": {"b": 1}}))'): WHOLE,
    ("value", "signature(dict(add.s(1))).app"): WHOLE,
    ("value", "chord([add.s(1, 1)]).link(errback.s())"): CLEAR,
    ("value", "chord([add.s(1, 1)]).link_error(errback.s())"): CLEAR,
    ("value", "chord([add.s(1, 2)])()"): CLEAR,
    ("value", 'group("add")'): CLEAR,
    ("value", "group(1, 2)"): CLEAR,
    ("value", "group(add.s(1, 2)) | 3"): CLEAR,
    ("value", "chord([add.s(1, 2)]) | tsum.s()"): BODY_BY_JOINING,
    ("value", 'type(__import__("copy").deepcopy(group(add.s(1, [2])))).__name__'): FAITHFUL,
}  # fmt: skip


def comparable(value, table):
    """Leave out what has no meaning: brackets of a repr, and the ancestors of a result, which we know better."""
    if isinstance(value, str):
        return re.sub(r"[(\[]+|[)\]]+", "|", value)
    if isinstance(value, dict) and "messages" in value:
        result = value["result"]
        messages = value["messages"]
        if table == "header_errbacks":
            messages = json.loads(json.dumps(messages).replace('"options": {"immutable": true}', '"options": {}'))
            messages = json.loads(json.dumps(messages).replace('"immutable": true, "note"', '"note"'))
        return messages, result and (result["type"], result["tuple"][0][0])
    return value


def cases(table):
    for program in programs.lines(programs.CANVASES):
        if program in RECORDED.get(table, RECORDED["canvas"]):
            yield program


def check(table, program, recorder, run):
    recorded = RECORDED[table][program] if table in RECORDED else RECORDED["canvas"][program][table]
    actual = programs.record_one(run, program)
    why = DIFFERENT.get((table, program)) or DIFFERENT.get(("*", program))
    if why is None:
        assert comparable(actual, table) == comparable(recorded, table)
    return comparable(actual, table) != comparable(recorded, table)


@pytest.fixture(scope="module")
def recorders():
    """One recorder for each set of settings, on demand."""
    found = {}

    def recorder(table):
        conf = programs.VARIANTS.get(table, {})
        if table not in found:
            for other in found.values():
                other.close()
            found.clear()
            found[table] = programs.Recorder(**conf)
        found[table].app.set_current()  # the test that made it may be another
        return found[table]

    yield recorder
    for each in found.values():
        each.close()


@pytest.mark.parametrize("program", list(cases("canvas")))
@pytest.mark.parametrize("way", ["shape", "frozen", "sent", "eager"])
def test_a_canvas_is_as_in_celery_5_7(recorders, program, way):
    recorder = recorders("canvas")
    runs = {"shape": recorder.shape, "frozen": recorder.frozen, "sent": recorder.sent_by, "eager": recorder.eager}
    check(way, program, recorder, runs[way])


@pytest.mark.parametrize("program", list(RECORDED["call"]))
def test_a_call_with_late_arguments_and_options_is_as_in_celery_5_7(recorders, program):
    recorder = recorders("canvas")
    check("call", program, recorder, recorder.called)


@pytest.mark.parametrize("program", list(RECORDED["value"]))
def test_a_value_is_as_in_celery_5_7(recorders, program):
    recorder = recorders("canvas")
    check("value", program, recorder, recorder.printed)


VARIED = [(table, program) for table in programs.VARIANTS for program in RECORDED[table]]


@pytest.mark.parametrize(("table", "program"), VARIED, ids=[f"{table}-{program}" for table, program in VARIED])
def test_a_canvas_under_other_settings_is_as_in_celery_5_7(recorders, table, program):
    recorder = recorders(table)
    run = programs.WAYS.get(table, programs.Recorder.sent_by)
    check(table, program, recorder, lambda program: run(recorder, program))


def test_every_difference_named_above_is_one(recorders):
    found = set()
    for table in ("canvas", "call", "value", *programs.VARIANTS):
        recorder = recorders(table)
        ways = {"shape": recorder.shape, "frozen": recorder.frozen, "sent": recorder.sent_by, "eager": recorder.eager}
        if table in ("call", "value"):
            ways = {table: recorder.called if table == "call" else recorder.printed}
        elif table in programs.VARIANTS:
            run = programs.WAYS.get(table, programs.Recorder.sent_by)
            ways = {table: lambda program, run=run, recorder=recorder: run(recorder, program)}
        for named, program in DIFFERENT:
            if program in RECORDED[table]:
                for way, run in ways.items():
                    if named in ("*", way) and check(way, program, recorder, run):
                        found.add((named, program))

    assert DIFFERENT.keys() - found == set()
