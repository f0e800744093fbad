"""Where canvases end otherwise than in Celery 5.7.0, on purpose: how, and why."""

from __future__ import annotations

EAGER = ("eager",)
REDIS = ("redis/redis",)
RPC = ("rabbitmq/rpc",)
DATABASE = ("rabbitmq/database",)
FILES = ("redis/filesystem",)

#: Why → canvas → [(ways, how it ends with us), ...]
DIFFERENT = {
    "arguments that are given to the clone of a canvas are used; Celery forgets them": {
        "(add.s(2) | mul.s(3)).clone((1,))": [
            (EAGER + REDIS + RPC + DATABASE + FILES, {"value": 9, "state": "SUCCESS", "ran": {"add": 1, "mul": 1}}),
        ],
        "chain(*[add.s(1) for _ in range(30)]).clone((0,))": [
            (EAGER + REDIS + RPC + DATABASE + FILES, {"value": 30, "state": "SUCCESS", "ran": {"add": 30}}),
        ],
        "chord([add.s(2), add.s(4)], tsum.s()).clone((1,))": [
            (EAGER, {"value": 8, "state": "SUCCESS", "ran": {"add": 2, "tsum": 1}}),
        ],
        "group(add.s(2), add.s(3)).clone((1,))": [
            (
                EAGER + REDIS + RPC + DATABASE + FILES,
                {"value": [3, 4], "state": ["SUCCESS", "SUCCESS"], "ran": {"add": 2}},
            ),
        ],
    },
    "the task itself can be given to a map; Celery cannot send it": {
        "chain(add.s(1, 2), xmap(double, [1, 2]))": [
            (REDIS + RPC + DATABASE + FILES, {"value": [2, 4], "state": "SUCCESS", "ran": {"add": 1, "double": 2}}),
        ],
        "xmap(double, [1, 2])": [
            (REDIS + RPC + DATABASE + FILES, {"value": [2, 4], "state": "SUCCESS", "ran": {"double": 2}}),
        ],
    },
    "chunks run eagerly, with their stamps, and have values; Celery gives handles on tasks that nobody runs": {
        "add.chunks([(1, 1), (2, 2), (3, 3)], 2)": [
            (EAGER, {"value": [[2, 4], [6]], "state": ["SUCCESS", "SUCCESS"], "ran": {"add": 3}}),
        ],
        "signature(json.loads(json.dumps(add.chunks([(1, 1), (2, 2), (3, 3)], 2))), app=app)": [
            (
                EAGER,
                {
                    "value": [["<id-1>", None], [[["<id-2>", None], None], [["<id-3>", None], None]]],
                    "state": "SUCCESS",
                    "ran": {},
                },
            ),
        ],
        'stamped(add.chunks([(1, 1), (2, 2), (3, 3)], 2), stamp="v")': [
            (EAGER, {"value": [[2, 4], [6]], "state": ["SUCCESS", "SUCCESS"], "ran": {"add": 3}}),
        ],
    },
    "a header that is a single chain is one member; Celery takes the parts of the mapping for members": {
        "chord(ident.s(1) | ident.s(), collect.s())": [
            (
                EAGER + REDIS + DATABASE + FILES,
                {"value": [[[1]], {}], "state": "SUCCESS", "ran": {"collect": 1, "ident": 2}},
            ),
        ],
    },
    "an errback that is a chain is sent; Celery loses it": {
        "errored(fail.s(), errback_by_id.s() | ident.s())": [
            (
                EAGER + REDIS + RPC + DATABASE + FILES,
                {"error": "ValueError", "state": "FAILURE", "ran": {"errback_by_id": 1, "fail": 1, "ident": 1}},
            ),
        ],
    },
    "nobody waits for what ignores its result, and a chord keeps its value for the body; Celery hangs": {
        "chain(add.s(1, 2), ignored.s())": [
            (REDIS + RPC + DATABASE + FILES, {"value": None, "state": "PENDING", "ran": {"add": 1, "ignored": 1}}),
        ],
        "chord([ident.s(1), ident.s(2)], ignored.s())": [
            (REDIS + DATABASE + FILES, {"value": None, "state": "PENDING", "ran": {"ident": 2, "ignored": 1}}),
        ],
        "chord([ident.s(1).set(ignore_result=True), ident.s(2)], collect.s())": [
            (DATABASE + FILES, {"value": [[[1, 2]], {}], "state": "SUCCESS", "ran": {"collect": 1, "ident": 2}}),
        ],
        "chord([ignored.s(), ident.s(1)], collect.s())": [
            (
                DATABASE + FILES,
                {"value": [[[1, 1]], {}], "state": "SUCCESS", "ran": {"collect": 1, "ident": 1, "ignored": 1}},
            ),
        ],
        "chord([ignored.s(), ignored.s()], collect.s())": [
            (DATABASE + FILES, {"value": [[[1, 1]], {}], "state": "SUCCESS", "ran": {"collect": 1, "ignored": 2}}),
        ],
        "group(ignored.s(), add.s(1, 2))": [
            (
                REDIS + RPC + DATABASE + FILES,
                {"value": [None, 3], "state": ["PENDING", "SUCCESS"], "ran": {"add": 1, "ignored": 1}},
            ),
        ],
        "group(ignored.s(), ignored.s())": [
            (
                REDIS + RPC + DATABASE + FILES,
                {"value": [None, None], "state": ["PENDING", "PENDING"], "ran": {"ignored": 2}},
            ),
        ],
    },
    "what waits behind a step that was revoked or has expired is told; Celery leaves it pending, or the broker drops the message": {
        "chain(ident.s(1), add.s(1).set(expires=LONG_AGO), add.s(2))": [
            (REDIS + RPC + DATABASE + FILES, {"error": "TaskRevokedError", "state": "REVOKED", "ran": {"ident": 1}}),
        ],
        "chain(ident.s(1), ident.s().set(expires=LONG_AGO), group(ident.s(), ident.s()) | tsum.s())": [
            (REDIS + DATABASE + FILES, {"error": "TaskRevokedError", "state": "REVOKED", "ran": {"ident": 1}}),
        ],
        "chain(ident.s(1).set(expires=LONG_AGO), add.s(1))": [
            (REDIS + RPC + DATABASE + FILES, {"error": "TaskRevokedError", "state": "REVOKED", "ran": {}}),
        ],
        "chord([chain(ident.s(1), ident.s().set(expires=LONG_AGO), ident.s()), ident.s(1)], tsum.s())": [
            (REDIS + DATABASE + FILES, {"error": "TaskRevokedError", "state": "FAILURE", "ran": {"ident": 2}}),
        ],
        "chord([ident.s(1).set(expires=LONG_AGO), ident.s(1)], tsum.s())": [
            (DATABASE, {"error": "TaskRevokedError", "state": "FAILURE", "ran": {"ident": 1}}),
        ],
        "errored(chord([ident.s(1).set(expires=LONG_AGO), ident.s(1)], tsum.s()), errback.s())": [
            (DATABASE, {"error": "TaskRevokedError", "state": "FAILURE", "ran": {"errback": 1, "ident": 1}}),
        ],
    },
    "what takes the place of a task answers whoever waits for that; Celery answers itself": {
        "deeper.s(4)": [
            (RPC, {"value": 4, "state": "SUCCESS", "ran": {"deeper": 5}}),
        ],
        "deeper_chain.s(1, 3)": [
            (RPC, {"value": 4, "state": "SUCCESS", "ran": {"add": 3, "deeper_chain": 4}}),
        ],
        "errored(replaced_failing.s(), errback.s())": [
            (RPC, {"error": "ValueError", "state": "FAILURE", "ran": {"errback": 1, "fail": 1, "replaced_failing": 1}}),
        ],
        "group(deeper.s(1), deeper.s(2), deeper.s(3))": [
            (RPC, {"value": [1, 2, 3], "state": ["SUCCESS", "SUCCESS", "SUCCESS"], "ran": {"deeper": 9}}),
        ],
        "group(replaced.s(1), replaced_group.s(2), replaced_chain.s(3))": [
            (
                RPC,
                {
                    "error": "NotImplementedError",
                    "state": ["SUCCESS", "FAILURE", "SUCCESS"],
                    "ran": {"add": 2, "mul": 1, "replaced": 1, "replaced_chain": 1, "replaced_group": 1},
                },
            ),
        ],
        "linked(replaced.s(1), mul.s(2))": [
            (RPC, {"value": 11, "state": "SUCCESS", "ran": {"add": 1, "mul": 1, "replaced": 1}}),
        ],
        "linked(replaced_chain.s(1), mul.s(2))": [
            (RPC, {"value": 6, "state": "SUCCESS", "ran": {"add": 1, "mul": 2, "replaced_chain": 1}}),
        ],
        "replaced.s(1)": [
            (RPC, {"value": 11, "state": "SUCCESS", "ran": {"add": 1, "replaced": 1}}),
        ],
        "replaced.s(1) | replaced.s() | replaced.s()": [
            (RPC, {"value": 31, "state": "SUCCESS", "ran": {"add": 3, "replaced": 3}}),
        ],
        'stamped(stamps_after_chain.s(), stamp="v")': [
            (RPC, {"value": [[{}], {}], "state": "SUCCESS", "ran": {"stamps": 2, "stamps_after_chain": 1}}),
        ],
        'stamped(stamps_after_replace.s(), stamp="v")': [
            (RPC, {"value": [{}], "state": "SUCCESS", "ran": {"stamps": 1, "stamps_after_replace": 1}}),
        ],
    },
    "members of a group within a group keep their order": {
        "chain(add.s(1, 1), group(group(add.s(1), add.s(2)), add.s(3)), collect.s())": [
            (
                REDIS + DATABASE + FILES,
                {"value": [[[3, 4, 5]], {}], "state": "SUCCESS", "ran": {"add": 4, "collect": 1}},
            ),
        ],
        "chord((x for x in [group(ident.s(1), ident.s(2)), ident.s(3)]), collect.s())": [
            (DATABASE + FILES, {"value": [[[1, 2, 3]], {}], "state": "SUCCESS", "ran": {"collect": 1, "ident": 3}}),
        ],
        "chord([add.chunks([(1, 1), (2, 2), (3, 3)], 2).group(), ident.s(1)], collect.s())": [
            (
                REDIS + DATABASE + FILES,
                {"value": [[[[2, 4], [6], 1]], {}], "state": "SUCCESS", "ran": {"add": 3, "collect": 1, "ident": 1}},
            ),
        ],
        "chord([group(add.s(1, 2), add.s(3, 4)), add.s(5, 6)], collect.s())": [
            (
                REDIS + DATABASE + FILES,
                {"value": [[[3, 7, 11]], {}], "state": "SUCCESS", "ran": {"add": 3, "collect": 1}},
            ),
        ],
        "chord([group(ident.s(1), group(ident.s(2), ident.s(3))), ident.s(4)], collect.s())": [
            (
                REDIS + DATABASE + FILES,
                {"value": [[[1, 2, 3, 4]], {}], "state": "SUCCESS", "ran": {"collect": 1, "ident": 4}},
            ),
        ],
        "group(add.s(1, 2), group(add.s(3, 4), add.s(5, 6))) | collect.s()": [
            (
                REDIS + DATABASE + FILES,
                {"value": [[[3, 7, 11]], {}], "state": "SUCCESS", "ran": {"add": 3, "collect": 1}},
            ),
        ],
    },
    "a group of one in a chain is that one in eager mode, as it is in a worker": {
        "_chain(add.s(1, 2), group(add.s(1)), mul.s(3))": [
            (EAGER, {"value": 12, "state": "SUCCESS", "ran": {"add": 2, "mul": 1}}),
        ],
        "_chain(group(add.s(1, 2)), tsum.s())": [
            (EAGER, {"error": "TypeError", "state": "FAILURE", "ran": {"add": 1, "tsum": 1}}),
        ],
        "chain(group(add.s(1, 2)))": [
            (EAGER, {"value": 3, "state": "SUCCESS", "ran": {"add": 1}}),
        ],
    },
    "stamps of a chain within the header stay there; Celery names them on the body without a value": {
        "stamped(chord([chord([stamps.s(), stamps.s()], stamps.s()), stamps.s() | stamps.s()], stamps.s()), Everywhere())": [
            (
                EAGER,
                {
                    "value": [
                        [
                            [
                                [[{"hs": ["h"], "sig": ["s-stamps"]}], [{"hs": ["h"], "sig": ["s-stamps"]}]],
                                {"body": ["b"], "hs": ["h"], "sig": ["s-stamps"]},
                            ],
                            [
                                [{"cs": [2], "hs": ["h"], "sig": ["s-stamps"]}],
                                {"cs": [2], "hs": ["h"], "sig": ["s-stamps"]},
                            ],
                        ],
                        {"body": ["b"], "hs": ["h"], "sig": ["s-stamps"]},
                    ],
                    "state": "SUCCESS",
                    "ran": {"stamps": 6},
                },
            ),
            (
                REDIS + DATABASE + FILES,
                {
                    "value": [
                        [
                            [
                                [[{"hs": "h", "sig": "s-stamps"}], [{"hs": "h", "sig": "s-stamps"}]],
                                {"body": "b", "hs": "h", "sig": "s-stamps"},
                            ],
                            [[{"cs": 2, "hs": "h", "sig": "s-stamps"}], {"cs": 2, "hs": "h", "sig": "s-stamps"}],
                        ],
                        {"body": "b", "hs": "h", "sig": "s-stamps"},
                    ],
                    "state": "SUCCESS",
                    "ran": {"stamps": 6},
                },
            ),
        ],
    },
    "a chord in whose header a chord or a chain fails, ends, and its errbacks are called once": {
        "chord([chord([chord([fail.s(), add.s(1, 2)], tsum.s()), add.s(1, 1)], tsum.s()), add.s(1, 1)], tsum.s())": [
            (REDIS, {"error": "ChordError", "state": "FAILURE", "ran": {"add": 3, "fail": 1}}),
        ],
        "chord([chord([fail.s(), add.s(1, 2)], tsum.s() | mul.s(1)), add.s(1, 1)], tsum.s())": [
            (REDIS, {"error": "ChordError", "state": "FAILURE", "ran": {"add": 2, "fail": 1}}),
        ],
        "chord([chord([fail.s(), add.s(1, 2)], tsum.s()), add.s(1, 1)], tsum.s())": [
            (REDIS, {"error": "ChordError", "state": "FAILURE", "ran": {"add": 2, "fail": 1}}),
        ],
        "chord([chord([fail.s(), ident.s(1)], tsum.s()), ident.s(2)], tsum.s()).on_error(errback.s())": [
            (
                REDIS + DATABASE + FILES,
                {"error": "ChordError", "state": "FAILURE", "ran": {"errback": 1, "fail": 1, "ident": 2}},
            ),
        ],
        "chord([chord([fail.s(), ident.s(1)], tsum.s()).on_error(errback.s()), ident.s(2)], tsum.s())": [
            (REDIS, {"error": "ChordError", "state": "FAILURE", "ran": {"errback": 1, "fail": 1, "ident": 2}}),
        ],
        "chord([fail.s(), add.s(1, 2)], chord([tsum.s()], tsum.s()))": [
            (REDIS + DATABASE + FILES, {"error": "ValueError", "state": "FAILURE", "ran": {"add": 1, "fail": 1}}),
        ],
        "chord([fail.s(), add.s(1, 2)], tsum.s() | add.s(1) | group(add.s(1), add.s(2)))": [
            (
                REDIS + DATABASE + FILES,
                {"error": "ChordError", "state": ["FAILURE", "FAILURE"], "ran": {"add": 1, "fail": 1}},
            ),
        ],
        "header_errored(chord([chord([fail.s(), ident.s(1)], tsum.s()), ident.s(1)], tsum.s()), errback.s())": [
            (
                REDIS + DATABASE + FILES,
                {"error": "ChordError", "state": "FAILURE", "ran": {"errback": 3, "fail": 1, "ident": 2}},
            ),
        ],
    },
    "each member of a body that is a group fails with ChordError, which names the member that failed": {
        "chord([chord([fail.s(), add.s(1, 2)], group(tsum.s(), tsum.s())), add.s(1, 1)], tsum.s())": [
            (REDIS + DATABASE + FILES, {"error": "ChordError", "state": "FAILURE", "ran": {"add": 2, "fail": 1}}),
        ],
        "chord([fail.s(), add.s(1, 2)], group(tsum.s(), collect.s()))": [
            (
                REDIS + DATABASE + FILES,
                {"error": "ChordError", "state": ["FAILURE", "FAILURE"], "ran": {"add": 1, "fail": 1}},
            ),
        ],
        "chord([fail.s(), ident.s(1)], group(tsum.s(), tsum.s())).on_error(errback.s())": [
            (
                REDIS + DATABASE + FILES,
                {"error": "ChordError", "state": ["FAILURE", "FAILURE"], "ran": {"errback": 2, "fail": 1, "ident": 1}},
            ),
        ],
    },
    "what takes the place of a task answers for it also where it ends in a group or is chunks; in Celery nobody does": {
        "replaced_chord_of_groups.s(1)": [
            (
                REDIS + DATABASE + FILES,
                {
                    "value": [3, 2],
                    "state": "SUCCESS",
                    "ran": {"ident": 2, "replaced_chord_of_groups": 1, "size": 1, "tsum": 1},
                },
            ),
        ],
        "replaced_chunks.s(1)": [
            (
                EAGER + REDIS + DATABASE + FILES,
                {"value": [[2], [3]], "state": "SUCCESS", "ran": {"add": 2, "replaced_chunks": 1}},
            ),
            (RPC, {"error": "NotImplementedError", "state": "FAILURE", "ran": {"replaced_chunks": 1}}),
        ],
    },
    "a group after a chord that ends in a group gets all its values; Celery sends it once for each of them": {
        program: [
            (
                REDIS + DATABASE + FILES,
                {"value": [5, 2], "state": ["SUCCESS", "SUCCESS"], "ran": {"ident": 2, "size": 2, "tsum": 2}},
            ),
        ]
        for program in (
            "group(ident.s(1), ident.s(2)) | group(tsum.s(), size.s()) | group(tsum.s(), size.s())",
            "chord([ident.s(1), ident.s(2)], group(tsum.s(), size.s())) | group(tsum.s(), size.s())",
        )
    },
    "chain(a, group(), b) is a | group() | b: an empty group gives an empty list; Celery leaves it out of the first": {
        "chain(group(), collect.s())": [
            (
                EAGER + REDIS + RPC + DATABASE + FILES,
                {"value": [[[]], {}], "state": "SUCCESS", "ran": {"collect": 1}},
            ),
        ],
        "chain(ident.s(1), group(), collect.s())": [
            (
                EAGER + REDIS + DATABASE + FILES,
                {"value": [[[]], {}], "state": "SUCCESS", "ran": {"collect": 1, "ident": 1}},
            ),
            (RPC, {"refused": "NotImplementedError", "ran": {}}),
        ],
    },
    "what failed first is raised": {
        "chord([ident.s(1), ident.s(2)], chord([fail.s(), tsum.s()], tsum.s()))": [
            (
                REDIS + DATABASE + FILES,
                {"error": "ValueError", "state": "FAILURE", "ran": {"fail": 1, "ident": 2, "tsum": 1}},
            ),
        ],
    },
}

_FLAT = {
    (way, canvas): outcome
    for canvases in DIFFERENT.values()
    for canvas, endings in canvases.items()
    for ways, outcome in endings
    for way in ways
}


def ours(way, canvas):
    """Return how ``canvas`` ends with us, None where it ends as in Celery."""
    return _FLAT.get((way, canvas))


def differences():
    """Return every (way, canvas) that is named here."""
    return list(_FLAT)
