"""A client of one implementation and a worker of the other: every scenario comes out as it does between equals.

``scenarios_*.py`` have what the client does, in one text for both; here stands what must come out.  The matrix of the last
run is in ``build/interop.md``.
"""

from __future__ import annotations

import pytest
from interop_kit import PAIRS

TROUBLE = {"state": "FAILURE", "class": "Trouble", "module": "interopapp", "bases": ["Exception"]}


def is_trouble(*args):
    def check(found):
        named = ("Traceback (most recent call last)", "interopapp.py", "in fail", "raise Trouble(message, 42)")
        assert all(text in found["traceback"] for text in named)
        assert {**found, "traceback": None} == {**TROUBLE, "args": list(args), "traceback": None}

    return check


def fails_with(name, module, *args):
    def check(found):
        assert (found["state"], found["class"], found["module"]) == ("FAILURE", name, module)
        assert tuple(found["args"][: len(args)]) == args

    return check


def is_revoked(error, *reasons):
    assert (error["state"], error["class"], error["module"]) == ("REVOKED", "TaskRevokedError", "celery.exceptions")
    assert error["args"][0] in reasons


def unbuildable(found):
    # its class cannot be called with what is recorded: a stand-in of the same name
    assert (found["state"], found["class"]) == ("FAILURE", "Unbuildable") or found[
        "class"
    ] == "UnpickleableExceptionWrapper"
    assert "raise Unbuildable(1, 2)" in found["traceback"]


def wrong_arguments(found):
    fails_with("TypeError", "builtins")(found)
    assert "'y'" in found["args"][0]


def expires(found):
    gone, late, alive = found
    is_revoked(gone, "expired")
    assert (late, alive) == ("REVOKED", 3)


def revoked_before_start(found):
    error, started = found
    is_revoked(error, "revoked")
    assert started == []


def terminated(found):
    error, ended = found
    is_revoked(error, "terminated", "revoked")  # the other worker, which does not know the task, says so at once
    assert ended == []


def link_error(found):
    # the errback saw the exception itself and its traceback
    assert found == ["FAILURE", [["Trouble", "True"]]]


def chain_with_failure(found):
    assert found == ["FAILURE", [["Trouble", "True"]], "Trouble"]


def chord_with_failure(found):
    state, name, error = found
    assert (state, name) == ("FAILURE", "ChordError")
    assert "Trouble('part', 42)" in error


def chord_whose_chain_fails(found):
    state, name, error, calls = found
    assert (state, name, calls) == ("FAILURE", "ChordError", 1)
    assert "Trouble('deep', 42)" in error


def time_limits(found):
    soft, hard = found
    fails_with("SoftTimeLimitExceeded", "billiard.exceptions")(soft)
    fails_with("TimeLimitExceeded", "billiard.exceptions", "0.6")(hard)


def message_attributes(found):
    task_id, seen = found
    assert seen.pop("origin").startswith("gen")
    assert seen.pop("routing_key").rsplit("-", 1)[1] in ("ours", "theirs")
    assert seen == {
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "group_index": None,
        "correlation_id": task_id,
        "retries": 0,
        "shadow": "another name",
        "is_eager": False,
        "argsrepr": "<args>",
        "kwargsrepr": "<kwargs>",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamps": {},
        "stamped_headers": None,
        "called_directly": False,
        "utc": None,
        "timelimit": [20, 10],
        "header": "v",
        "priority": 3,
        "expires": True,
        "eta": False,
        "reply_to": True,
    }


def family(found):
    name, args, worker = found.pop("extended")
    assert (name, args) == ("interopapp.spawning", [5])
    assert worker.endswith("@interop")
    assert found == {"children": True, "child": 6, "root": True, "parent": True}


#: Scenario → what must come out, or a function that checks it.
EXPECTED = {
    "simple": 5,
    "kwargs": 5,
    "by_name": 7,
    "json_types": True,
    "serializers": {f"{s}+{c}": True for s in ("json", "pickle", "yaml", "msgpack") for c in (None, "gzip", "bzip2")},
    "large": 1_000_000,
    "retry": 2,
    "autoretry": 1,
    "retries_exhausted": fails_with("Trouble", "interopapp", "again"),
    "failure": is_trouble("boom", "42"),
    "failure_builtin": fails_with("KeyError", "builtins", "missing"),
    "failure_unbuildable": unbuildable,
    "unknown_task": fails_with("NotRegistered", "celery.exceptions", "interopapp.nobody_knows"),
    "wrong_arguments": wrong_arguments,
    "link": [5, [9, 50]],
    "link_error": link_error,
    "link_error_by_id": ["FAILURE", [[]]],
    "eta": [[[]], True],
    "countdown": [3, True],
    "expires": expires,
    "ignore_result": ["PENDING", "PENDING", None],
    "revoked_before_start": revoked_before_start,
    "revoked_while_waiting": ["REVOKED", []],
    "revoked_by_stamp": ["REVOKED", []],
    "terminated": terminated,
    "custom_state": [{"done": 1, "of": 2}, "done"],
    "progress_messages": [["PROGRESS", "SUCCESS"], "done"],
    "time_limits": time_limits,
    "ignored_and_rejected": ["set by hand", 1],
    "late_acknowledgement": [0, 1, 2, 3, 4],
    "message_attributes": message_attributes,
    "protocol_1": [5, 10, "FAILURE", "SoftTimeLimitExceeded"],
    "forgotten": "PENDING",
    "pushed_result": ["SUCCESS"],
    "chains": [13, 9, 3],
    "chain_with_failure": chain_with_failure,
    "groups": [[2 * number for number in range(10)], True, True, 10],
    "chords": 21,
    "chord_of_chains": 44,
    "nested_chords": 21,
    "chord_with_failure": chord_with_failure,
    "chord_amid_a_chain": 14,
    "nested_workflow": [8, 9],
    "pickled_workflow": 11,
    "linked_workflows": [[30], [[7, 8]], [30]],
    "replacement_in_a_chord": 16,
    "chord_whose_chain_fails": chord_whose_chain_fails,
    "rest_of_a_failed_chain": ["FAILURE", "Trouble"],
    "stamps_on_a_chord": [[{"trace": "t1"}, ["trace"]]] * 2,
    "chunks_and_maps": [[[2, 4], [6]], [3, 3], [3, 7]],
    "replacement": [11, 22, 5],
    "family": family,
    "stamps": [[{"trace": "t1"}, ["trace"]]] * 2,
}
OF_RPC = ("simple", "failure", "retry", "progress_messages", "ignore_result", "chains", "time_limits", "terminated")
OF_DATABASE = (
    "simple",
    "failure",
    "retry",
    "custom_state",
    "groups",
    "chords",
    "chord_with_failure",
    "chord_amid_a_chain",
)
OF_DATABASE += ("message_attributes", "family", "forgotten", "revoked_before_start")
CASES = [
    *(("redis", name) for name in EXPECTED),
    *(("rabbitmq", name) for name in EXPECTED),
    *(("rpc", name) for name in OF_RPC),
    *(("database", name) for name in OF_DATABASE),
]
NEEDS_NODE = {"revoked_before_start"}
pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]
each_pair = pytest.mark.parametrize("pair", PAIRS, indirect=True, ids="-to-".join)


@each_pair
@pytest.mark.parametrize(("scene", "name"), CASES, indirect=["scene"])
def test_scenario(pair, name):
    found = pair.do(name, *([pair.worker] if name in NEEDS_NODE else []))
    expected = EXPECTED[name]
    if callable(expected):
        expected(found)
    else:
        assert found == expected


@each_pair
@pytest.mark.parametrize("scene", ["redis", "rabbitmq", "database"], indirect=True)
def test_records_left_by_one_worker_are_read_alike_by_both_clients(pair):
    ids = pair.do("leave_records")
    mine, others = (pair.scene.client(side, pair.worker_side).do("read_records", *ids) for side in ("ours", "theirs"))

    assert mine == others
    good, bad, value, error, traceback, group = mine
    assert good[:7] == ["SUCCESS", "interopapp.add", [20, 22], {}, pair.worker, 0, pair.scene.queue(pair.worker_side)]
    assert bad[:3] == ["FAILURE", "interopapp.fail", ["left"]]
    assert (value, error, group) == (42, "Trouble('left', 42)", [2, 4])
    assert "raise Trouble" in traceback


@pytest.mark.parametrize("scene", ["redis", "rabbitmq"], indirect=True)
def test_the_two_are_who_they_should_be(scene):
    theirs, ours = scene.client("theirs", "ours"), scene.client("ours", "theirs")

    assert theirs.version == "5.7.0"
    assert ours.version.startswith("5.7.0+celeriac")
    assert theirs.file != ours.file
    for side, version in (("theirs", "v5.7.0 "), ("ours", "v5.7.0+celeriac")):
        assert version in scene.workers[side].wait_until_ready().log()
