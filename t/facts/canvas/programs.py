"""Canvases, and what an interpreter's Celery makes of them.

``python programs.py > recorded.json`` writes what each program below gives: its shape, its shape when
frozen, the messages it sends and its eager value.  Run with Celery 5.7.0 it made ``recorded.json``; the
tests run the same table on ours and compare.  Ids are replaced by ``<id-N>`` in order of appearance.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable
from typing import Any

from celery import Celery, chain, chord, group, signals, signature
from celery.canvas import (
    Signature,
    StampingVisitor,
    _chain,
    chunks,
    maybe_signature,
    maybe_unroll_group,
    xmap,
    xstarmap,
)

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PROPERTIES_COMPARED = ("priority", "expiration")
NOTHING = (None, {}, [], "")
HEADERS_IGNORED = {"origin", "eta", "expires", "lang", "argsrepr", "kwargsrepr", "timelimit"}


class Everywhere(StampingVisitor):
    def on_signature(self, sig, **headers):
        return {"sig": "s-" + str(sig.get("task"))}

    def on_callback(self, callback, **header):
        return {"cb": "c"}

    def on_errback(self, errback, **header):
        return {"eb": "e"}

    def on_group_start(self, group, **headers):
        return {"gs": len(group.tasks), "stamped_headers": ["gs"]}

    def on_group_end(self, group, **headers):
        self.group_ended = True

    def on_chain_start(self, chain, **headers):
        return {"cs": len(chain.tasks), "stamped_headers": ["cs"]}

    def on_chord_body(self, sig, **header):
        return {"body": "b"}

    def on_chord_header_start(self, sig, **header):
        return {"hs": "h", "stamped_headers": ["hs"], "note": "n"}


class Partly(StampingVisitor):
    """Only some of what is returned is named a stamp."""

    def on_signature(self, sig, **headers):
        return {"kept": 1, "also": 2, "stamped_headers": ["kept"]}


class Listed(StampingVisitor):
    def on_signature(self, sig, **headers):
        return {"kept": ["x"], "stamped_headers": ["kept"]}


class Logging(StampingVisitor):
    """Keeps the order of the calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def _note(self, hook: str, sig: Any, headers: dict[str, Any]) -> None:
        self.calls.append([hook, sig.get("subtask_type") or sig.get("task"), sorted(headers)])

    def on_signature(self, sig, **headers):
        self._note("signature", sig, headers)
        return {"n": len(self.calls)}

    def on_group_start(self, group, **headers):
        self._note("group_start", group, headers)
        return {}

    def on_group_end(self, group, **headers):
        self._note("group_end", group, headers)

    def on_chain_start(self, chain, **headers):
        self._note("chain_start", chain, headers)
        return {}

    def on_chain_end(self, chain, **headers):
        self._note("chain_end", chain, headers)

    def on_chord_header_start(self, sig, **header):
        self._note("chord_header_start", sig, header)
        return super().on_chord_header_start(sig, **header)

    def on_chord_header_end(self, sig, **header):
        self._note("chord_header_end", sig, header)

    def on_chord_body(self, sig, **header):
        self._note("chord_body", sig, header)
        return {}

    def on_callback(self, callback, **header):
        self._note("callback", callback, header)
        return {}

    def on_errback(self, errback, **header):
        self._note("errback", errback, header)
        return {}


def make_app(task_cls: Any = None, **conf: Any) -> Celery:
    settings = {"broker_url": "memory://", "result_backend": "cache+memory://", **conf}
    app = Celery("programs", set_as_current=True, task_cls=task_cls)
    app.conf.update(settings)

    @app.task(shared=False, name="add")
    def add(x, y):
        return x + y

    @app.task(shared=False, name="mul")
    def mul(x, y):
        return x * y

    @app.task(shared=False, name="tsum")
    def tsum(xs):
        return sum(xs)

    @app.task(shared=False, name="ident")
    def ident(x):
        return x

    @app.task(shared=False, name="double")
    def double(x):
        return [x, x] if isinstance(x, list) else x * 2

    @app.task(shared=False, name="const")
    def const(*args, **kwargs):
        return 42

    @app.task(shared=False, name="collect")
    def collect(*args, **kwargs):
        return [list(args), kwargs]

    @app.task(shared=False, name="fail")
    def fail(*args):
        raise ValueError("no")

    @app.task(shared=False, name="errback")
    def errback(*args):
        return "errback"

    @app.task(shared=False, name="replaced", bind=True)
    def replaced(self, x):
        return self.replace(add.s(x, 10))

    @app.task(shared=False, name="replaced_group", bind=True)
    def replaced_group(self, x):
        return self.replace(group(add.s(x, 1), add.s(x, 2)) | tsum.s())

    @app.task(shared=False, name="replaced_bare_group", bind=True)
    def replaced_bare_group(self, x):
        return self.replace(group(add.s(x, 1), add.s(x, 2)))

    @app.task(shared=False, name="replaced_chain", bind=True)
    def replaced_chain(self, x):
        return self.replace(add.s(x, 1) | mul.s(3))

    @app.task(shared=False, name="ignored", ignore_result=True)
    def ignored(*args):
        return 1

    @app.task(shared=False, name="fast", priority=7, queue="quick", time_limit=9)
    def fast(x):
        return x

    app.finalize()
    return app


def namespace(app: Celery) -> dict[str, Any]:
    """What a program can name."""
    names: dict[str, Any] = {name: task for name, task in app.tasks.items() if "." not in name}
    names.update(
        app=app, chain=chain, chord=chord, group=group, signature=signature, Signature=Signature, chunks=chunks,
        xmap=xmap, xstarmap=xstarmap, maybe_signature=maybe_signature, maybe_unroll_group=maybe_unroll_group,
        _chain=_chain, Everywhere=Everywhere, Partly=Partly, Logging=Logging, Listed=Listed, json=json,
    )  # fmt: skip
    return names


# Canvases: each is one expression.  Shape, frozen shape, messages and eager value are compared.
CANVASES = r"""
add.s(1, 2)
add.si(1, 2)
add.s(1).clone((2,))
add.s(1, 2).set(queue="q", priority=3)
add.s(1, 2).set(countdown=3, expires=60, time_limit=5, soft_time_limit=3)
add.s(1, y=2)
add.s(1, 2).set(headers={"h": 1})
signature("add", (1, 2), app=app)
add.signature((1, 2), {}, queue="q")
fast.s(1)
fail.s()
chain(add.s(1, 2))
chain(add.s(1, 2), mul.s(3))
add.s(1, 2) | mul.s(3) | add.s(4)
chain(add.s(1, 2), mul.si(3, 4), add.s(4))
chain([add.s(1, 2), mul.s(3)])
chain(x for x in [add.s(1, 2), mul.s(3)])
chain(chain(add.s(1, 2), mul.s(3)), chain(add.s(1), mul.s(2)))
chain(add.s(1, 2), mul.s(3)).set(queue="q", priority=2)
chain(add.s(1, 2).set(queue="a"), mul.s(3).set(queue="b")).set(queue="c")
chain(add.s(1, 2), fail.s(), add.s(4))
(add.s(1, 2) | mul.s(3)) | (add.s(1) | mul.s(2))
(add.s(1, 2) | mul.s(3)).clone()
(add.s(2) | mul.s(3)).clone((1,))
chain(add.s(1, 2), group(add.s(1), add.s(2)))
chain(add.s(1, 2), group(add.s(1), add.s(2)), tsum.s())
chain(add.s(1, 2), group(add.s(1), add.s(2)), tsum.s(), mul.s(2))
chain(add.s(1, 2), group(add.s(1)), mul.s(2))
chain(group(add.s(1, 1), add.s(2, 2)), tsum.s())
chain(group(add.s(1, 1), add.s(2, 2)), tsum.s(), mul.s(2))
chain(group(add.s(1, 1), add.s(2, 2)), group(tsum.s(), tsum.s()))
chain(group(add.s(1, 1), add.s(2, 2)), group(tsum.s(), tsum.s()), tsum.s())
chain(group(add.s(1, 1), add.s(2, 2)))
chain(add.s(1, 1), chord([add.s(1), add.s(2)], tsum.s()))
chain(add.s(1, 1), chord([add.s(1), add.s(2)], tsum.s()), mul.s(3))
chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), mul.s(3))
chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), group(add.s(1), add.s(2)))
chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), group(add.s(1), add.s(2)), tsum.s())
chain(chord([add.s(1, 1), add.s(2, 2)], tsum.s()), chord([add.s(1), add.s(2)], tsum.s()))
chain(chain(add.s(1, 1), group(add.s(1), add.s(2))), tsum.s())
chain(chain(add.s(1, 1), group(add.s(1), add.s(2))), chain(tsum.s(), mul.s(2)))
chain(add.s(1, 1), group(chain(add.s(1), mul.s(2)), add.s(2)), tsum.s())
chain(add.s(1, 1), group(group(add.s(1), add.s(2)), add.s(3)), collect.s())
chain(add.s(1, 1), chain(group(add.s(1), add.s(2)), tsum.s()), mul.s(2))
chain(add.s(1, 2), xmap(double, [1, 2]))
chain(xmap(double.s(), [1, 2]), tsum.s())
add.s(1, 1) | group(add.s(1), add.s(2))
chain(group(add.s(1, 2)), tsum.s())
chain(group(add.s(1, 2)))
chain(group(add.s(1, 2)), group(tsum.s()))
chain(add.s(1, 2), group(group(add.s(3))))
chain(add.s(1, 2), group(add.s(3)))
chain(add.s(1, 2), group(add.s(3) | mul.s(2)), mul.s(2))
chord([add.s(1, 2), add.s(2, 2)], tsum.s()) | group(add.s(1))
chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s()), group(add.s(1)))
chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s()))
chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s() | mul.s(2)))
chord([add.s(1, 2)], tsum.s()) | tsum.si([1]) | group(add.s(1), add.s(2)) | tsum.s()
_chain(add.s(1, 2), group(add.s(1), add.s(2)), tsum.s())
_chain(add.s(1, 2), group(add.s(1)), mul.s(3))
_chain(group(add.s(1, 2)), tsum.s())
_chain(group(add.s(1, 2), add.s(2, 2)), tsum.s(), mul.s(2))
_chain(_chain(add.s(1, 2), mul.s(2)), _chain(add.s(1), group(add.s(1), add.s(2))), tsum.s())
_chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s() | mul.s(2)), mul.s(3))
chain(add.s(1, 2), add.s(1), link=mul.s(2))
chain(add.s(1, 2), add.s(1), queue="q")
add.s(1, 1) | group(add.s(1), add.s(2)) | tsum.s()
add.s(1, 1) | group(add.s(1))
add.s(1, 1) | group([])
add.s(1, 1) | (group(add.s(1), add.s(2)) | tsum.s())
add.s(1, 1) | (add.s(1) | group(add.s(1), add.s(2)))
group(add.s(1, 2), add.s(3, 4))
group([add.s(1, 2), add.s(3, 4)])
group(add.s(i, i) for i in range(3))
group([add.s(1, 2)])
group(add.s(1, 2), group(add.s(3, 4), add.s(5, 6)))
group(group(add.s(1, 2), add.s(3, 4)), group(add.s(5, 6), add.s(7, 8)))
group(add.s(1, 2) | mul.s(3), add.s(3, 4) | mul.s(5))
group(chord([add.s(1, 2), add.s(3, 4)], tsum.s()), add.s(5, 6))
group(add.s(1, 2), group(add.s(3, 4), group(add.s(5, 6), chain(add.s(1, 1), mul.s(2)))))
group(chain(add.s(1, 2), group(add.s(1), add.s(2))), add.s(3, 3))
group(add.s(1, 2), add.s(3, 4)).set(queue="q", priority=2)
group(add.s(1, 2), add.s(3, 4)).skew(start=1, step=2)
group(group(add.s(1, 1)), group(group(add.s(2, 2))))
group(add.s(2), add.s(3)).clone((1,))
group(fail.s(), add.s(1, 2))
group(signature("add", (1, 2), app=app), dict(add.s(2, 3)))
group()
group([])
group(add.s(1, 2), add.s(3, 4)) | tsum.s()
group(add.s(1, 2), add.s(3, 4)) | tsum.s() | mul.s(2)
group(add.s(1, 2), add.s(3, 4)) | tsum.s() | mul.s(2) | mul.s(2)
group(add.s(1, 2), add.s(3, 4)) | (tsum.s() | mul.s(2))
group(add.s(1, 2)) | tsum.s()
group(add.s(1, 2)) | add.s(1)
group(add.s(1, 2), add.s(3, 4)) | group(tsum.s(), collect.s())
group(add.s(1, 2), add.s(3, 4)) | group(tsum.s())
group(add.s(1, 2), add.s(3, 4)) | group(tsum.s(), collect.s()) | collect.s()
group(add.s(1, 2), add.s(3, 4)) | chord([tsum.s(), tsum.s()], tsum.s())
group(add.s(1, 2), group(add.s(3, 4), add.s(5, 6))) | collect.s()
group(add.s(1, 2), chain(add.s(3, 4), group(add.s(5), add.s(6)))) | collect.s()
group([]) | tsum.s()
group(add.s(1, 2), add.s(3, 4)).set(queue="q") | tsum.s().set(queue="b")
chord([add.s(1, 2), add.s(3, 4)], tsum.s())
chord((add.s(i, i) for i in range(3)), tsum.s())
chord(group(add.s(1, 2), add.s(3, 4)), tsum.s())
chord([add.s(1, 2)], tsum.s())
chord(add.s(1, 2), tsum.s())
chord([], tsum.s())
chord([add.s(1, 2), add.s(3, 4)], tsum.si([1, 2]))
chord([add.s(1, 2), add.s(3, 4)], tsum.s() | mul.s(2))
chord([add.s(1, 2), add.s(3, 4)], group(tsum.s(), collect.s()))
chord([add.s(1, 2), add.s(3, 4)], chord([tsum.s(), tsum.s()], tsum.s()))
chord([add.s(1, 2) | mul.s(3), add.s(3, 4) | mul.s(5)], tsum.s())
chord([add.s(1, 2) | mul.s(3) | add.s(1), add.s(3, 4)], tsum.s())
chord([chord([add.s(1, 2), add.s(3, 4)], tsum.s()), add.s(5, 6)], tsum.s())
chord([chord([chord([add.s(1, 2), add.s(3, 4)], tsum.s()), add.s(5, 6)], tsum.s()), add.s(1, 1)], tsum.s())
chord([group(add.s(1, 2), add.s(3, 4)), add.s(5, 6)], collect.s())
chord([group(add.s(1, 2), add.s(3, 4)) | tsum.s(), add.s(5, 6)], collect.s())
chord([chain(add.s(1, 2), group(add.s(3), add.s(4))), add.s(5, 6)], collect.s())
chord([chain(add.s(1, 2), group(add.s(3), add.s(4)), tsum.s()), add.s(5, 6)], collect.s())
chord([chain(group(add.s(1, 2), add.s(3, 4)), tsum.s(), mul.s(3)), add.s(5, 6)], collect.s())
chord([xmap(double.s(), [1, 2]), add.s(5, 6)], collect.s())
chord([add.s(1, 2), add.s(3, 4)], tsum.s().set(queue="b")).set(queue="q", priority=4)
chord([add.s(1, 2), fail.s()], tsum.s())
chord([add.s(1, 2), add.s(3, 4)], fail.s())
chord([add.s(1, 2), add.s(3, 4)], tsum.s()) | mul.s(3)
chord([add.s(1, 2), add.s(3, 4)], tsum.s()) | mul.s(3) | mul.s(4)
chord([add.s(1, 2), add.s(3, 4)], tsum.s()) | group(add.s(1), add.s(2))
chord([add.s(1, 2), add.s(3, 4)], tsum.s()) | chord([add.s(1), add.s(2)], tsum.s())
chord([add.s(1, 2), add.s(3, 4)], tsum.s()) | (mul.s(3) | mul.s(4))
chord([add.s(2), add.s(4)], tsum.s()).clone((1,))
chord([add.s(1, 2), add.s(3, 4)], body=tsum.s(), interval=0.5, max_retries=3)
xmap(double, [1, 2])
double.map([1, 2])
tsum.map([[1, 2], [3]])
add.starmap([(1, 2), (3, 4)])
add.chunks([(1, 1), (2, 2), (3, 3)], 2)
add.chunks([(1, 1), (2, 2), (3, 3)], 2).group()
add.chunks(((i, i) for i in range(5)), 2).group()
double.map([1, 2]) | tsum.s()
add.starmap([(1, 2), (3, 4)]) | tsum.s()
group(double.map([1, 2]), add.starmap([(1, 2)]))
add.chunks([(1, 1), (2, 2), (3, 3)], 2).group() | collect.s()
add.s(1, 2).on_error(errback.s())
chain(add.s(1, 2), mul.s(3)).on_error(errback.s())
chain(add.s(1, 2).on_error(errback.s()), mul.s(3))
chain(add.s(1, 2), mul.s(3)).on_error(errback.s()) | add.s(1)
group(add.s(1, 2), add.s(3, 4)).on_error(errback.s())
chord([add.s(1, 2), add.s(3, 4)], tsum.s()).on_error(errback.s())
chord([add.s(1, 2), add.s(3, 4)], tsum.s().on_error(errback.s()))
chord([add.s(1, 2) | mul.s(2), add.s(3, 4)], tsum.s()).on_error(errback.s())
(group(add.s(1, 2), add.s(3, 4)) | tsum.s() | mul.s(2)).on_error(errback.s())
linked(add.s(1, 2), mul.s(3))
linked(add.s(1, 2), mul.s(3), mul.s(4), mul.s(3))
linked(chain(add.s(1, 2), mul.s(3)), mul.s(4))
linked(group(add.s(1, 2), add.s(3, 4)), mul.s(2))
linked(group(add.s(1, 2), add.s(3, 4)), mul.s(2), mul.s(3))
linked(chord([add.s(1, 2), add.s(3, 4)], tsum.s()), mul.s(2))
linked(chord([add.s(1, 2), add.s(3, 4)], tsum.s() | mul.s(5)), mul.s(2))
linked(group(add.s(1, 2) | mul.s(2), add.s(3, 4)), mul.s(2))
linked(add.s(1, 2), mul.s(3) | mul.s(4))
linked(add.s(1, 2), group(mul.s(3), mul.s(4)))
linked(add.s(1, 2), chord([mul.s(3), mul.s(4)], tsum.s()))
linked(add.s(1, 2), mul.s(3)) | mul.s(2)
linked(add.s(1, 2) | mul.s(3), mul.s(2)) | mul.s(5)
errored(group(add.s(1, 2) | mul.s(2), add.s(3, 4)), errback.s())
errored(group(add.s(1, 2), group(add.s(3, 4), add.s(1, 1))), errback.s())
errored(chord([add.s(1, 2), add.s(3, 4)], tsum.s() | mul.s(1)), errback.s())
errored(chain(add.s(1, 2), group(add.s(1), add.s(2)), tsum.s()), errback.s())
errored(chain(add.s(1, 2), group(add.s(1), add.s(2))), errback.s())
stamped(add.s(1, 2), stamp="v")
stamped(add.s(1, 2), a=1, b=[2])
stamped(linked(add.s(1, 2), mul.s(3)), stamp="v")
stamped(chain(add.s(1, 2), mul.s(3)), stamp="v")
stamped(group(add.s(1, 2), add.s(3, 4)), stamp="v")
stamped(chord([add.s(1, 2), add.s(3, 4)], tsum.s()), stamp="v")
stamped(chord([add.s(1, 2), add.s(3, 4)], tsum.s()), Everywhere())
stamped(chain(add.s(1, 2), group(add.s(1), add.s(2)), tsum.s()), Everywhere())
stamped(chain(add.s(1, 2), mul.s(3)), Everywhere())
stamped(group(add.s(1, 2), add.s(3, 4) | mul.s(2)), Everywhere())
stamped(errored(linked(add.s(1, 2), mul.s(3)), errback.s()), Everywhere())
stamped(errored(linked(chain(add.s(1, 2), mul.s(2)), mul.s(3)), errback.s()), Everywhere())
stamped(errored(linked(chord([add.s(1, 2), add.s(2, 2)], tsum.s()), mul.s(3)), errback.s()), Everywhere())
stamped(add.s(1, 2), Partly())
stamped(add.s(1, 2), Partly(), other="o")
stamped(stamped(add.s(1, 2), stamp="v"), stamp="w")
stamped(stamped(add.s(1, 2), stamp="v"), stamp="w", append_stamps=True)
stamped(stamped(add.s(1, 2), stamp=["v"]), stamp=["w"], append_stamps=True)
stamped(stamped(add.s(1, 2), stamp="v"), other="w")
stamped(stamped(add.s(1, 2), kept="v"), Listed(), append_stamps=True)
stamped(stamped(add.s(1, 2), kept="v"), Listed())
stamped(add.s(1, 2), stamp="v") | mul.s(2)
stamped(double.map([1, 2]), stamp="v")
stamped(chain(add.s(1, 2), chord([add.s(1), add.s(2)], tsum.s())), Everywhere())
stamped(add.chunks([(1, 1), (2, 2), (3, 3)], 2), stamp="v")
replaced.s(1)
chain(replaced.s(1), mul.s(2))
replaced_group.s(1)
chain(replaced_group.s(1), mul.s(2))
replaced_bare_group.s(1)
chain(replaced_bare_group.s(1), tsum.s())
chain(replaced_chain.s(1), mul.s(2))
group(replaced.s(1), replaced_group.s(2), replaced_chain.s(3))
chord([replaced.s(1), replaced_group.s(2), replaced_chain.s(3)], tsum.s())
chord([add.s(1, 2), add.s(3, 4)], replaced_group.s())
ignored.s() | add.s(1)
group(ignored.s(), add.s(1, 2))
signature(json.loads(json.dumps(chain(add.s(1, 2), mul.s(3)))), app=app)
signature(json.loads(json.dumps(group(add.s(1, 2), mul.s(3, 4)))), app=app)
signature(json.loads(json.dumps(chord([add.s(1, 2), mul.s(3, 4)], tsum.s()))), app=app)
signature(json.loads(json.dumps(chain(add.s(1, 2), group(add.s(1), add.s(2)), tsum.s()))), app=app)
signature(json.loads(json.dumps(add.starmap([(1, 2), (3, 4)]))), app=app)
signature(json.loads(json.dumps(add.chunks([(1, 1), (2, 2), (3, 3)], 2))), app=app)
signature(json.loads(json.dumps(chord([chord([add.s(1, 2)], tsum.s()), add.s(5, 6)], tsum.s()))), app=app)
"""

# Calls with arguments given late: (canvas, how it is sent).  Messages are compared.
CALLS = r"""
add.s(2).apply_async((1,))
add.s(2).delay(1)
add.s(1).delay(y=2)
add.si(1, 2).apply_async((3,))
add.s(1, 2).apply_async(queue="q", priority=1)
add.s(1, 2).set(queue="a").apply_async(queue="q", priority=1)
add.s(1, 2).apply_async(task_id="known")
add.s(1, 2).apply_async(link=mul.s(2), link_error=errback.s())
linked(add.s(1, 2), mul.s(1)).apply_async(link=mul.s(2))
errored(add.s(1, 2), errback.s()).apply_async(link_error=errback.si())
add.s(1, 2).set(group_id="g").apply_async(group_id="other")
add.s(1, 2).apply_async(add_to_parent=False, root_id="r", parent_id="p")
(add.s(2) | mul.s(3)).apply_async((1,))
(add.s(2) | mul.s(3)).delay(1)
(add.s(2) | mul.s(3)).apply_async((1,), queue="q", countdown=3)
(add.s(2) | mul.s(3)).apply_async((1,), task_id="known")
(add.s(2) | mul.s(3)).apply_async((1,), link=mul.s(9), link_error=errback.s())
(add.s(2) | mul.s(3)).apply_async((1,), root_id="r", parent_id="p", group_id="g", group_index=2)
(add.s(2) | mul.s(3)).apply_async((1,), chord=dict(tsum.s()), group_id="g")
chain(add.s(1, 2), mul.s(3)).apply_async(headers={"h": 1}, priority=5)
(add.s(1, 2) | mul.s(3)).apply_async(chain=[dict(mul.s(7))])
group(add.s(2), add.s(3)).apply_async((1,))
group(add.s(2), add.s(3)).delay(1)
group(add.s(1, 2), add.s(3, 4)).apply_async(queue="q", countdown=4, priority=3)
group(add.s(1, 2), add.s(3, 4)).apply_async(task_id="gid")
group(add.s(1, 2), add.s(3, 4)).apply_async(group_id="gid")
group(add.s(1, 2), add.s(3, 4)).apply_async(link_error=errback.s())
group(add.s(1, 2), add.s(3, 4)).apply_async(root_id="r", parent_id="p", chain=[dict(mul.s(7))])
group(add.s(1, 2).set(queue="a"), add.s(3, 4)).set(queue="g").apply_async(queue="q")
group(add.s(1, 2), add.s(3, 4)).apply_async(chord=dict(tsum.s()))
group(collect.s(1), collect.s(2) | ident.s()).apply_async((5,), {"z": 3})
group(collect.s(1), chord([collect.s(1), collect.s(2)], collect.s())).apply_async((5,), {"z": 3})
chord([collect.s(1), collect.s(2) | ident.s()], collect.s()).apply_async((5,), {"z": 3})
chain(group(collect.s(1), collect.s(2) | ident.s()), collect.s()).apply_async((5,), {"z": 3})
ignored.s().set(ignore_result=False).apply_async()
ignored.s().apply_async(ignore_result=False)
chord([add.s(2), add.s(3)], tsum.s()).apply_async((1,))
chord([add.s(2), add.s(3)], tsum.s()).delay(1)
chord([add.s(1, 2), add.s(3, 4)])(tsum.s())
chord([add.s(1, 2), add.s(3, 4)])(tsum.s(), queue="q")
chord([add.s(1, 2), add.s(3, 4)], tsum.s()).apply_async(task_id="known")
chord([add.s(1, 2), add.s(3, 4)], tsum.s()).apply_async(queue="q", countdown=3, priority=2)
chord([add.s(1, 2), add.s(3, 4)], tsum.s()).apply_async(root_id="r", parent_id="p", chain=[dict(mul.s(7))], priority=None)
chord([add.s(1, 2), add.s(3, 4)], tsum.s()).apply_async(link=mul.s(9), link_error=errback.s())
chord([add.s(1, 2), add.s(3, 4)], tsum.s()).apply_async(group_id="g", group_index=1, chord=dict(collect.s()))
chord([add.s(1, 2) | mul.s(2), add.s(3, 4)], tsum.s()).apply_async(root_id="r", parent_id="p", queue="q")
chord([chord([add.s(1, 2), add.s(3, 4)], tsum.s()), add.s(5, 6)], tsum.s()).apply_async(root_id="r", parent_id="p", queue="q")
chord([add.s(1, 2)], tsum.s()).apply_async(queue="q")
chord([], tsum.s()).apply_async(queue="q")
chord([], tsum.s()).apply_async((1,))
chord([add.s(1, 2), add.s(3, 4)], tsum.s() | mul.s(2)).apply_async(queue="q", task_id="known")
double.map([1, 2]).apply_async(queue="q")
add.chunks([(1, 1), (2, 2), (3, 3)], 2).apply_async(queue="q")
add.chunks([(1, 1), (2, 2), (3, 3)], 2)()
add.chunks([(1, 1), (2, 2), (3, 3)], 2).delay()
stamped(add.s(1, 2), stamp="v").apply_async(stamped_headers=["stamp"], stamp="w")
add.s(1, 2).apply_async(stamped_headers=["stamp"], stamp="w")
chain(add.s(1, 2), mul.s(3)).apply_async(stamped_headers=["stamp"], stamp="w")
group(add.s(1, 2), mul.s(3, 4)).apply_async(stamped_headers=["stamp"], stamp="w")
stamped(chain(add.s(1, 2), mul.s(3)), stamp="v").apply_async(queue="q")
signature(dict(chain(add.s(1, 2), mul.s(3))), app=app).apply_async()
"""

# Anything else that has a value: it is compared as it prints.
VALUES = r"""
add.s(1)(2)
(add.s(2) | mul.s(3))(1)
add.s(1, 2) == add.s(1, 2)
add.s(1, 2).id
add.s(1, 2).set(task_id="x").id
add.s(1, 2).name
add.s(1, 2).type is add
signature("nosuch", app=app).args
add.s(1, y=2).kwargs
add.s(1, 2).options
add.s(1, 2).task
add.si(1).immutable
chain(add.s(1, 1), mul.s(2)).immutable
group(add.s(1, 1)).subtask_type
[x.immutable for x in set_immutable(group(add.s(1, 1), add.s(2, 2))).tasks]
set_immutable(chord([add.s(1, 1)], tsum.s()))
set_immutable(chain(add.s(1, 1), mul.s(2)))
add.s(1).set(immutable=True)
add.s(1).clone((2,), {"z": 3}, queue="q")
add.si(1).clone((2,), {"z": 3}, queue="q")
add.s(1).partial((2,))
add.s(1, 2).replace(args=(5, 6))
add.s(1, 2).set(queue="q").replace(kwargs={"a": 1})
add.s(1, 2).set(queue="q").replace(options={"b": 1})
add.si(1, 2).replace(args=(5, 6))
add.s(1, 2).set(group_id="g", queue="a").clone(group_id="h", queue="b")
stamped(add.s(1, 2), stamp="v").clone(stamp="w", stamped_headers=["x"])
add.s(1, 2).reprcall()
add.s(1, 2).reprcall(3, z=4)
repr(add.s("a" * 2000))
repr(add.s(1, 2) | mul.s(3) | group(add.s(1), mul.s(2)) | tsum.s())
repr(chain(chord([add.s(1, 2), add.s(2, 2)], tsum.s()), mul.s(2)))
repr(chord([add.s(1, 2)]))
repr(chord([], tsum.s()))
repr(chord([add.s(1, 2)], tsum.s() | mul.s(2)))
repr(chord([add.s(1, 2)], group(tsum.s())))
repr(chord(group(group(add.s(1, 2))), tsum.s()))
repr(group(add.s(1, 2), chain(add.s(1, 1), mul.s(2)), group(add.s(3, 3), add.s(4, 4))))
repr(chord([chord([add.s(1, 2)], tsum.s()), add.s(2, 2)], tsum.s()))
repr(chain(add.s(1, 2), group(add.s(2), add.s(3))))
repr(signature({"task": "add", "args": [1], "kwargs": {"b": 1}}))
repr(add.starmap([(1, 2)]))
repr(add.chunks([(1, 2), (2, 3)], 1))
len(group(add.s(1, 2), add.s(3, 4)))
len(add.s(1, 2))
bool(group())
len(group())
bool(chain())
chain()
[t.task for t in chain(add.s(1, 1), mul.s(2)).unchain_tasks()]
unchained(chain(add.s(1, 1), mul.s(2)))
unchained(errored(linked(chain(add.s(1, 1), mul.s(2)), mul.s(9)), errback.s()))
[s.task for s in linked(add.s(1, 1), mul.s(2)).flatten_links()]
[s.args for s in linked(add.s(1, 1), linked(mul.s(2), mul.s(3)), mul.s(4)).flatten_links()]
chord([add.s(1, 2), add.s(3, 4)], tsum.s()).__length_hint__()
chord([add.s(1, 2) | mul.s(2), group(add.s(3, 4), add.s(1, 1))], tsum.s()).__length_hint__()
chord([chord([add.s(1, 2)], tsum.s()), group(add.s(3, 4), add.s(1, 1)) | tsum.s()], tsum.s()).__length_hint__()
chord([chord([add.s(1, 2)], group(tsum.s(), tsum.s())), add.s(3, 4)], tsum.s()).__length_hint__()
chord([chain(add.s(1, 2), group(add.s(3), add.s(4))), add.s(5, 6)], tsum.s()).__length_hint__()
chord([chain(group(add.s(3, 3), add.s(4, 4)), group(tsum.s(), tsum.s(), tsum.s())), add.s(5, 6)], tsum.s()).__length_hint__()
chord((add.s(i, i) for i in range(3)), tsum.s()).__length_hint__()
chord([], tsum.s()).__length_hint__()
chord(add.s(1, 1), tsum.s()).__length_hint__()
type(chain(add.s(1, 1))).__name__
type(chain(add.s(1, 1), add.s(1))).__name__
type(chain(group(add.s(1, 1), add.s(2, 2)))).__name__
type(chain(group(add.s(1, 1), add.s(2, 2)), tsum.s())).__name__
type(chain([add.s(1, 1)])).__name__
type(chain(chain(add.s(1, 1), add.s(2)))).__name__
type(add.s(1, 1) | group(add.s(1), add.s(2))).__name__
type(group(add.s(1, 1), add.s(2, 2)) | group(tsum.s(), tsum.s())).__name__
type(maybe_unroll_group(group(add.s(1, 1)))).__name__
type(maybe_unroll_group(group(add.s(1, 1), add.s(2, 2)))).__name__
type(maybe_unroll_group(group(group(add.s(1, 1))))).__name__
maybe_signature(None)
maybe_signature("x")
type(maybe_signature({"task": "add"}, app=app)).__name__
maybe_signature(add.s(1), app=app)
signature("add", (1,), app=app)
signature(dict(add.s(1))).app
signature(add.s(1, 2), (3,))
signature("add", 1, 2)
add.s(1) | 1
add.s(1) | None
1 | add.s(1)
group(1, 2)
group("add")
group(None)
chain(1, 2)
chord(1, tsum.s())
chord([add.s(1, 2)])()
chord([add.s(1, 2)]) | tsum.s()
group(add.s(1, 2)) | 3
chain(add.s(1, 2)) | 3
chord([add.s(1, 1)], tsum.s()) | 3
chain(add.s(1, 2), None)
Signature.from_dict({"task": "add", "args": [1], "options": {"queue": "q"}})
Signature.from_dict({"task": "celery.group", "kwargs": {"tasks": [dict(add.s(1, 1))]}, "subtask_type": "group"})
Signature.from_dict({"task": "celery.chain", "kwargs": {"tasks": [dict(add.s(1, 1))]}, "subtask_type": "chain"})
Signature.from_dict({"task": "celery.chain", "args": [], "kwargs": {"tasks": []}, "options": {}, "subtask_type": "chain", "immutable": False})
Signature.from_dict({"task": "add"})
Signature("add", (1,), {"a": 1}, {"queue": "q"}, immutable=True, extra=2)
Signature({"task": "add", "args": (1,)})
Signature(add)
Signature()
add.s(1, 2).append_to_list_option("link", 1)
appended(add.s(1, 2), "link", 1, 1, 2)
extended(add.s(1, 2), "link", [1, 2, 1])
extended(add.s(1, 2), "link", 1)
add.s(1).link(mul.s(2))
linked(add.s(1), mul.s(2), mul.s(2))
linked(errored(add.s(1), errback.s(), errback.s()), mul.s(2))
group(add.s(1, 1), add.s(2, 2)).link(mul.s(2))
group(add.s(1, 1), add.s(2, 2)).link_error(errback.s())
chord([add.s(1, 1)], tsum.s()).link(mul.s(2))
chord([add.s(1, 1)], tsum.s()).link_error(errback.s())
chord([add.s(1, 1)]).link_error(errback.s())
chord([add.s(1, 1)]).link(errback.s())
group(add.s(1, 1), add.s(2, 2)).skew(start=5, stop=7, step=1)
stamp_calls(add.s(1, 2))
stamp_calls(linked(errored(add.s(1, 2), errback.s()), mul.s(2)))
stamp_calls(chain(add.s(1, 2), mul.s(2)))
stamp_calls(linked(chain(add.s(1, 2), mul.s(2)), mul.s(3)))
stamp_calls(group(add.s(1, 2), add.s(2, 2)))
stamp_calls(chord([add.s(1, 2), add.s(2, 2)], tsum.s()))
stamp_calls(linked(chord([add.s(1, 2), add.s(2, 2)], tsum.s()), mul.s(3)))
stamp_calls(chain(add.s(1, 2), group(add.s(2), add.s(3) | mul.s(2)), tsum.s()))
stamp_calls(chord([chord([add.s(1, 2), add.s(2, 2)], tsum.s()), add.s(2, 2)], tsum.s()))
stamp_calls(linked(add.s(1, 2), group(add.s(2), add.s(3))))
stamp_calls(chord([add.s(1, 2)]))
stamp_calls(double.map([1]))
isinstance(add.s(1), __import__("celery.utils.abstract", fromlist=["x"]).CallableSignature)
sorted(Signature.TYPES)
list(group(add.s(1, 2), add.s(3, 4)))
group(add.s(1, 2), add.s(3, 4))[0]
group(add.s(1, 2), add.s(3, 4)).tasks[1]
add.s(1, 2)[0]
chain(add.s(1, 2), mul.s(3)).tasks
chain(add.s(1, 2), mul.s(3))[1]
chord([add.s(1, 2)], tsum.s()).tasks
chord([add.s(1, 2)], tsum.s()).body
json.dumps(add.s(1, 2).__json__())
json.dumps(group(add.s(1, 2)), sort_keys=True)
json.dumps(chord([add.s(1, 2)], tsum.s()), sort_keys=True)
json.dumps(chord((add.s(i, i) for i in range(2)), tsum.s()), sort_keys=True)
json.dumps(group(add.s(i, i) for i in range(2)), sort_keys=True)
json.dumps(add.map(range(3)), sort_keys=True)
json.dumps(add.chunks(((i, i) for i in range(3)), 2), sort_keys=True)
__import__("pickle").loads(__import__("pickle").dumps(add.s(1, 2)))
type(__import__("pickle").loads(__import__("pickle").dumps(chord([add.s(1, 2)], tsum.s())))).__name__
__import__("pickle").loads(__import__("pickle").dumps(chain(add.s(1, 2), mul.s(1))))
type(__import__("pickle").loads(__import__("pickle").dumps(group(add.s(1, 2), mul.s(1))))).__name__
__import__("copy").deepcopy(add.s(1, [2]))
type(__import__("copy").deepcopy(group(add.s(1, [2])))).__name__
type(__import__("copy").copy(group(add.s(1, [2])))).__name__
type(add.s(1, [2]).clone()).__name__
type(chain(add.s(1, [2]), add.s(1)).clone()).__name__
type(group(add.s(1, [2]), add.s(1)).clone()).__name__
type(chord([add.s(1, [2]), add.s(1)]).clone()).__name__
type(xmap(add, [1]).clone()).__name__
type(chunks(add, [1], 1).clone()).__name__
"""


def linked(sig: Signature, *callbacks: Signature) -> Signature:
    for callback in callbacks:
        sig.link(callback)
    return sig


def errored(sig: Signature, *errbacks: Signature) -> Signature:
    for errback in errbacks:
        sig.link_error(errback)
    return sig


def stamped(sig: Signature, *args: Any, **kwargs: Any) -> Signature:
    sig.stamp(*args, **kwargs)
    return sig


def set_immutable(sig: Signature) -> Signature:
    sig.set_immutable(True)
    return sig


def unchained(sig: Signature) -> list[Any]:
    return [dict(task) for task in sig.unchain_tasks()]


def appended(sig: Signature, key: str, *values: Any) -> Signature:
    for value in values:
        sig.append_to_list_option(key, value)
    return sig


def extended(sig: Signature, key: str, value: Any) -> Signature:
    sig.extend_list_option(key, value)
    return sig


def stamp_calls(sig: Signature) -> list[Any]:
    visitor = Logging()
    sig.stamp(visitor, extra="x")
    return visitor.calls


WORDS = (linked, errored, stamped, set_immutable, unchained, appended, extended, stamp_calls)


class Mask:
    """Names ids in the order they are seen."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def text(self, value: str) -> str:
        value = re.sub(r"0x[0-9a-f]{6,}", "0x", value)
        value = re.sub(r"<_?chain@\w+", "<chain", value)
        return UUID.sub(lambda match: self.seen.setdefault(match.group(), f"<id-{len(self.seen) + 1}>"), value)

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(str(key)): self(sorted(item) if key == "stamped_headers" and item else item)
                for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))
            }
        if isinstance(value, (list, tuple)):
            return [self(item) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Iterable) and not isinstance(value, (set, bytes)):
            return [self(item) for item in value]
        return self.text(repr(value))


def error_of(error: BaseException) -> dict[str, Any]:
    return {"error": type(error).__name__}


class Recorder:
    """Runs programs and tells what they did."""

    def __init__(self, **conf: Any) -> None:
        self.app = make_app(**conf)
        self.names = namespace(self.app)
        self.names.update({word.__name__: word for word in WORDS})
        self.sent: list[dict[str, Any]] = []
        signals.before_task_publish.connect(self._on_publish, weak=False)

    def close(self) -> None:
        signals.before_task_publish.disconnect(self._on_publish)

    def _on_publish(self, sender=None, body=None, headers=None, properties=None, routing_key=None, **_):
        headers = headers or {}
        self.sent.append(
            {
                "to": routing_key,
                "headers": {
                    key: value for key, value in headers.items() if value not in NOTHING and key not in HEADERS_IGNORED
                },
                "timed": [key for key in ("eta", "expires") if headers.get(key)],
                "properties": {key: properties[key] for key in PROPERTIES_COMPARED if properties.get(key) is not None},
                "body": plain(body),
            }
        )

    def value(self, program: str) -> Any:
        return eval(program, dict(self.names))  # the table above

    def shape(self, program: str) -> Any:
        return Mask()(repr(self.value(program)))

    def frozen(self, program: str) -> Any:
        built = self.value(program)
        result = built.freeze()
        return Mask()({"result": result_of(result), "dict": without_bodies(plain(built))})

    def called(self, program: str) -> Any:
        self.sent = []
        result = self.value(program)
        mask = Mask()
        return {"messages": mask(self.sent), "result": mask(result_of(result))}

    def eager(self, program: str) -> Any:
        return {"value": Mask()(eager_value(self.value(program).apply()))}

    def sent_by(self, program: str) -> Any:
        return self.called(f"({program}).apply_async()")

    def eager_by_setting(self, program: str) -> Any:
        return {"value": Mask()(eager_value(self.value(program).apply_async()))}

    def printed(self, program: str) -> Any:
        return Mask()(json.loads(json.dumps(plain(self.value(program)), default=repr)))


def plain(value: Any) -> Any:
    """As JSON has it; a generator is read."""
    return json.loads(json.dumps(value, default=lambda v: list(v) if hasattr(v, "__iter__") else repr(v)))


def without_bodies(value: Any) -> Any:
    """Leave out the body of the chord that each frozen member of a header bears in Celery."""
    if isinstance(value, dict):
        return {key: without_bodies(item) for key, item in value.items() if key != "chord" or "task_id" not in value}
    return [without_bodies(item) for item in value] if isinstance(value, list) else value


def result_of(result: Any) -> Any:
    if result is None:
        return None
    return {"type": type(result).__name__, "tuple": plain(result.as_tuple())}


def eager_value(result: Any) -> Any:
    return result.get(disable_sync_subtasks=False)


def lines(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.strip()]


def record_one(record: Any, *args: Any) -> Any:
    try:
        return record(*args)
    except Exception as error:
        return error_of(error)


def record_all() -> dict[str, Any]:
    """Every table, every way."""
    found: dict[str, Any] = {"canvas": {}, "call": {}, "value": {}}
    recorder = Recorder()
    for program in lines(CANVASES):
        found["canvas"][program] = {
            "shape": record_one(recorder.shape, program),
            "frozen": record_one(recorder.frozen, program),
            "sent": record_one(recorder.sent_by, program),
            "eager": record_one(recorder.eager, program),
        }
    for program in lines(CALLS):
        found["call"][program] = record_one(recorder.called, program)
    for program in lines(VALUES):
        found["value"][program] = record_one(recorder.printed, program)
    recorder.close()
    for name, conf in VARIANTS.items():
        recorder = Recorder(**conf)
        found[name] = {
            program: record_one(WAYS.get(name, Recorder.sent_by), recorder, program)
            for program in lines(CANVASES)
            if CHOOSE[name] in program
        }
        recorder.close()
    return found


# The same canvases under other settings: only those that hold the word in ``CHOOSE``.
VARIANTS: dict[str, dict[str, Any]] = {
    "protocol_1": {"task_protocol": 1},
    "unlock": {"result_backend": f"file://{tempfile.gettempdir()}"},
    "header_errbacks": {"task_allow_error_cb_on_chord_header": True},
    "always_eager": {"task_always_eager": True},
}
WAYS = {"always_eager": Recorder.eager_by_setting}
CHOOSE = {
    "protocol_1": "chain",
    "unlock": "chord",
    "header_errbacks": "err",
    "always_eager": "",
}

if __name__ == "__main__":
    tables = record_all()
    print("{")
    for position, (table, programs) in enumerate(sorted(tables.items())):
        print(f'"{table}": {{')
        print(",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(programs.items())))
        print("}" + "," * (position < len(tables) - 1))
    print("}")
