"""What handles on results say and do, once their canvas has ended on a worker.

``python handles.py record`` runs the table with the interpreter's Celery, on a worker that it starts with Redis
(``TEST_REDIS_URL``), and writes ``handles.json``; run with Celery 5.7.0 it made the file that is here.  Ids are replaced by
``<id-N>`` in order of appearance.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from typing import Any

from celery.exceptions import TimeoutError
from celery.result import (
    EagerResult,
    GroupResult,
    ResultSet,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
    result_from_tuple,
)

HERE = Path(__file__).resolve().parent

#: What takes so long, hangs.
SECONDS = 30

spec = spec_from_file_location("canvas_outcomes", HERE / "outcomes.py")
outcomes = module_from_spec(spec)
spec.loader.exec_module(outcomes)
Mask, UUID = outcomes.programs.Mask, outcomes.programs.UUID

#: Canvas, and expressions about its result ``r``, each indented.
TABLE = r"""
add.s(1, 2)
    r.wait(timeout=30)
    r.get(timeout=30)
    [r.state, r.status, r.result, r.info, r.traceback]
    [r.ready(), r.successful(), r.failed(), r.exists(), r.ignored, r.supports_native_join]
    [r.parent, r.children, r.as_tuple(), r.as_list(), r.name, r.args, r.kwargs, r.retries, r.queue]
    [r.id == r.task_id, str(r) == r.id, r == r.id, r == app.AsyncResult(r.id), r != app.AsyncResult("x"), hash(r) == hash(r.id)]
    repr(r)
    type(r.date_done).__name__
    called(lambda note: r.get(callback=note))
    called(lambda note: r.then(note))
    called(lambda note: r.get(on_message=note))
    [r.maybe_throw(), r.maybe_reraise(), r.maybe_throw(propagate=False)]
    called(lambda note: r.maybe_throw(callback=note))
    [[str(node), value] for node, value in r.collect()]
    r.get_leaf()
    list(r.iterdeps())
    dot(r.build_graph())
    dot(r.graph)
    r.get(timeout=30, disable_sync_subtasks=False, follow_parents=False, propagate=False, interval=0.1, no_ack=False)
    inside_a_task(lambda: r.get())
    inside_a_task(lambda: r.get(disable_sync_subtasks=False))
    inside_a_task(lambda: allowed(lambda: r.get()))
    result_from_tuple(r.as_tuple(), app).get()
    app.AsyncResult.from_tuple(r.as_tuple()) if hasattr(app.AsyncResult, "from_tuple") else "no from_tuple"
    pickle.loads(pickle.dumps(r)).get()
    __import__("copy").copy(r).get()
    [r.forget(), app.AsyncResult(r.id).state]
fail.s()
    r.get(timeout=30)
    r.get(propagate=False)
    [r.state, r.result, r.info, r.ready(), r.successful(), r.failed()]
    r.traceback.splitlines()[0]
    r.traceback.splitlines()[-1]
    r.maybe_throw()
    r.maybe_throw(propagate=False)
    called(lambda note: r.get(propagate=False, callback=note))
    called(lambda note: r.then(note))
    r.get_leaf()
    [[str(node), value] for node, value in r.collect(propagate=False)]
add.s(1, 2) | mul.s(3) | add.s(4)
    r.get(timeout=30)
    [r.parent.get(), r.parent.parent.get(), r.parent.parent.parent]
    r.as_tuple()
    r.as_list()
    [r.children, r.parent.children, r.parent.parent.children]
    [[str(node), value] for node, value in r.parent.parent.collect()]
    r.parent.parent.get_leaf()
    r.parent.get_leaf()
    list(r.parent.parent.iterdeps())
    dot(r.parent.parent.build_graph())
    dot(r.parent.parent.graph)
    [result_from_tuple(r.as_tuple(), app).parent.get(), result_from_tuple(r.as_tuple(), app) == r]
    pickle.loads(pickle.dumps(r)).parent.get()
    [r.forget(), [app.AsyncResult(one).state for one in r.as_list()]]
chain(add.s(1, 2), fail.s(), add.s(4))
    r.get(timeout=30)
    r.get(timeout=30, follow_parents=False)
    r.get(timeout=30, propagate=False)
    [r.state, r.parent.state, r.parent.parent.state]
    [r.parent.failed(), r.parent.parent.successful()]
    r.parent.parent.get()
    r.maybe_throw()
group(add.s(1, 1), add.s(2, 2), add.s(3, 3))
    r.get(timeout=30)
    r.join(timeout=30)
    r.join_native(timeout=30)
    sorted([meta["result"], meta["status"], key] for key, meta in r.iter_native(timeout=30))
    [r.ready(), r.waiting(), r.successful(), r.failed(), r.completed_count(), r.supports_native_join]
    [type(r).__name__, len(r), r[0].get(), [str(one) for one in r], r.children == r.results, r.parent, bool(r)]
    r.as_tuple()
    repr(r)
    [str(r) == r.id, r == app.GroupResult(r.id, r.results), r != app.GroupResult("x", r.results)]
    called(lambda note: r.join(callback=note))
    by_value(called(lambda note: r.join_native(callback=note)))
    called(lambda note: r.get(callback=note)) == []
    r.join(timeout=30, on_message=print)
    called(lambda note: r.then(note))
    [r.maybe_throw(), r.maybe_reraise()]
    by_value(called(lambda note: r.maybe_throw(callback=note)))
    [r.save(), GroupResult.restore(r.id, app=app) == r, GroupResult.restore(r.id, app=app).get(), app.GroupResult.restore(r.id).get()]
    [r.save(), r.delete(), GroupResult.restore(r.id, app=app)]
    [result_from_tuple(r.as_tuple(), app) == r, result_from_tuple(r.as_tuple(), app).get()]
    pickle.loads(pickle.dumps(r)).get(timeout=5)
    inside_a_task(lambda: r.get())
    inside_a_task(lambda: r.join())
    inside_a_task(lambda: r.join_native())
    inside_a_task(lambda: r.join_native(disable_sync_subtasks=False))
    [r.forget(), [app.AsyncResult(one.id).state for one in r.results]]
group(add.s(1, 1), fail.s(), fail.s())
    r.get(timeout=30)
    r.get(timeout=30, propagate=False)
    r.join(timeout=30)
    r.join(timeout=30, propagate=False)
    r.join_native(timeout=30, propagate=False)
    r.maybe_throw()
    r.maybe_throw(propagate=False)
    [r.ready(), r.waiting(), r.successful(), r.failed(), r.completed_count()]
    sorted(one.state for one in r)
chord([add.s(1, 1), add.s(2, 2)], tsum.s())
    r.get(timeout=30)
    [type(r.parent).__name__, r.parent.get(), r.parent.parent]
    r.as_tuple()
    result_from_tuple(r.as_tuple(), app) == r
    [[str(node), value] for node, value in r.collect()]
chain(ident.s(1), group(add.s(1), add.s(2)), tsum.s(), add.s(3))
    r.get(timeout=30)
    [type(r).__name__, type(r.parent).__name__, type(r.parent.parent).__name__, type(r.parent.parent.parent).__name__]
    [r.parent.get(), r.parent.parent.get(), r.parent.parent.parent.get()]
    r.parent.parent.parent.get_leaf()
    dot(r.parent.parent.parent.build_graph())
    sorted(str(value) for node, value in r.parent.parent.parent.collect())
chain(ident.s(1), group(add.s(1), add.s(2)))
    r.get(timeout=30)
    [type(r).__name__, r.parent.get(), r.completed_count()]
    r.as_tuple()
    dot(r.parent.graph)
    [value for node, value in r.parent.collect()]
    r.parent.get_leaf()
group(group(add.s(1, 1), add.s(2, 2)), chain(add.s(3, 3), group(add.s(1), add.s(2))))
    r.results[-1].get(timeout=30)
    [type(one).__name__ for one in r.results]
    r.get(timeout=30)
    [r.ready(), r.successful()]
linked(ident.s(1), add.s(1), add.s(2))
    r.get(timeout=30)
    [ended(r.children), sorted(child.get(timeout=30) for one in r.children for child in getattr(one, "results", [one]))]
    len(list(r.collect()))
linked(ident.s(1), add.s(1))
    r.get(timeout=30)
    [ended(r.children), [child.get(timeout=30) for child in r.children]]
    r.get_leaf()
    [[str(node), value] for node, value in r.collect()]
    dot(r.build_graph())
ident.s(1)
    r.get(timeout=30)
    [ResultSet([r], app=app).get(), ResultSet([r, r], app=app).join(), ResultSet([], app=app).get(), ResultSet([], app=app).ready()]
    edited(ResultSet([r], app=app), r)
    [ResultSet([r], app=app).supports_native_join, bool(ResultSet([], app=app).supports_native_join), ResultSet([]).app is app]
    ResultSet([r], app=app).remove("nobody")
    [ResultSet([r], app=app).discard("nobody"), ResultSet([r], app=app) == ResultSet([r], app=app), len(ResultSet([r], app=app))]
    called(lambda note: ResultSet([r], app=app).then(note))
    repr(ResultSet([r], app=app))
    GroupResult.restore("nothing was saved", app=app)
    GroupResult(results=[r], app=app).id
    bool(GroupResult(app=app))
    app.AsyncResult(None)
    app.AsyncResult("unknown").state
    [app.AsyncResult("unknown").ready(), app.AsyncResult("unknown").result, app.AsyncResult("unknown").children, app.AsyncResult("unknown").date_done]
    app.AsyncResult("unknown").get(timeout=0.1)
    list(app.AsyncResult("unknown").collect(timeout=0.1))
    list(app.AsyncResult("unknown").iterdeps())
    list(app.AsyncResult("unknown").iterdeps(intermediate=True))
    dot(app.AsyncResult("unknown").build_graph(intermediate=True))
    app.AsyncResult("unknown").build_graph()
    ResultSet([app.AsyncResult("unknown")], app=app).get(timeout=0.1)
    ResultSet([app.AsyncResult("unknown")], app=app).join(timeout=0.1)
    [ResultSet([app.AsyncResult("unknown")], app=app).ready(), ResultSet([app.AsyncResult("unknown"), r], app=app).completed_count()]
    app.AsyncResult("unknown").maybe_throw()
    app.AsyncResult("unknown").forget()
    intervals(app.AsyncResult("unknown"))
    result_from_tuple(("an id", None), app)
    result_from_tuple((("an id", (("parent", None), None)), None), app).as_list()
    result_from_tuple((("group", None), [(("one", None), None)]), app)
    result_from_tuple(r, app) is r
    [add.AsyncResult(r.id).get(), app.AsyncResult(r.id).get()]
    denied(lambda: r.get())
    [assert_will_not_block(), denied(assert_will_not_block)]
    revoked(add.s(1, 2).set(countdown=600).apply_async())
    revoked(group(add.s(1, 2).set(countdown=600), add.s(1, 2).set(countdown=600)).apply_async())
    revoked_tree(chain(add.s(1, 2).set(countdown=600), add.s(1)).apply_async())
    eager(add.apply((1, 2)))
    eager(fail.apply())
    [add.apply((1, 2)).get(), add.apply((1, 2)).wait(), add.apply((1, 2)).as_tuple()[1], add.apply((1, 2)).children, add.apply((1, 2)).parent]
    [EagerResult("an id", 3, "SUCCESS").get(), EagerResult("an id", 3, "SUCCESS").as_tuple(), repr(EagerResult("an id", 3, "SUCCESS"))]
    EagerResult("an id", KeyError("x"), "FAILURE").get()
    EagerResult("an id", KeyError("x"), "FAILURE").get(propagate=False)
    EagerResult("an id", "text", "FAILURE").get()
    called(lambda note: EagerResult("an id", 3, "SUCCESS").then(note))
    called(lambda note: EagerResult("an id", 3, "SUCCESS").get(callback=note))
    called(lambda note: EagerResult("an id", 3, "SUCCESS").maybe_throw(callback=note))
    group(add.s(1, 2), add.s(3, 4)).apply().get()
    [group(add.s(1, 2), add.s(3, 4)).apply().successful(), group(add.s(1, 2), add.s(3, 4)).apply().join()]
    list(EagerResult("an id", 3, "SUCCESS").collect())
    EagerResult("an id", 3, "SUCCESS").get_leaf()
    revoked_eagerly(EagerResult("an id", 3, "SUCCESS"))
"""


class Words:
    """What expressions can call."""

    def __init__(self, app: Any) -> None:
        self.app = app

    @staticmethod
    def called(use: Any) -> list[Any]:
        """What a callback got that ``use`` handed over."""
        got: list[Any] = []
        use(lambda *args: got.append([str(arg) if hasattr(arg, "as_tuple") else without_times(arg) for arg in args]))
        return got

    def dot(self, graph: Any) -> list[str]:
        """The lines of the drawing, with what tasks returned in place of their ids."""
        out = StringIO()
        graph.to_dot(out)
        text = UUID.sub(lambda match: f"task that gave {self.app.AsyncResult(match.group()).result}", out.getvalue())
        return sorted(line.strip() for line in text.splitlines())

    @staticmethod
    def by_value(calls: list[Any]) -> list[Any]:
        return sorted(calls, key=lambda call: call[-1])

    @staticmethod
    def denied(use: Any) -> Any:
        with denied_join_result():
            return caught(use)

    inside_a_task = denied

    @staticmethod
    def allowed(use: Any) -> Any:
        with allow_join_result():
            return use()

    @staticmethod
    def ended(children: Any) -> bool:
        for child in children:
            child.get(timeout=30)
        return True

    @staticmethod
    def edited(results: Any, r: Any) -> list[Any]:
        results.add(r)
        sizes = [len(results)]
        results.update([r, r])
        sizes.append(len(results))
        results.remove(r)
        sizes.append(len(results))
        results.update([r])
        results.clear()
        return [*sizes, len(results)]

    @staticmethod
    def intervals(result: Any) -> list[Any]:
        calls: list[int] = []
        error = caught(lambda: result.get(timeout=1.5, interval=0.1, on_interval=lambda: calls.append(1)))
        return [error, len(calls) > 0]

    @staticmethod
    def revoked(result: Any) -> Any:
        result.revoke()
        members = getattr(result, "results", [result])
        return [caught(lambda one=one: one.get(timeout=30)) for one in members] + [one.state for one in members]

    @staticmethod
    def revoked_tree(result: Any) -> Any:
        result.parent.revoke()
        return [
            caught(lambda: result.parent.get(timeout=30)),
            result.parent.state,
            caught(lambda: result.get(timeout=1)),
        ]

    @staticmethod
    def revoked_eagerly(result: Any) -> Any:
        result.revoke()
        return [result.state, caught(result.get)]

    @staticmethod
    def eager(r: Any) -> Any:
        values = [r.state, r.status, r.result, r.info, r.ready(), r.successful(), r.failed(), r.supports_native_join]
        return [*values, r.get(propagate=False), bool(r.traceback), type(r).__name__, r.forget()]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if name not in ("date_done", "traceback")}
    return value


def caught(use: Any) -> Any:
    try:
        return use()
    except TimeoutError:
        return {"error": "TimeoutError"}
    except Exception as error:
        return {"error": type(error).__name__}


def rows() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    canvas = ""
    for line in outcomes.programs.lines(TABLE):
        if line.startswith(" "):
            found[canvas].append(line.strip())
        else:
            canvas = line
            found[canvas] = []
    return found


def said(run: Any) -> dict[str, dict[str, Any]]:
    """Send every canvas, and evaluate what stands below it, in order."""
    signal.signal(signal.SIGALRM, give_up)
    app = run.app
    names = outcomes.programs.namespace(app)
    words = Words(app)
    names.update({name: getattr(words, name) for name in dir(words) if not name.startswith("_")})
    names.update({word.__name__: word for word in outcomes.programs.WORDS})
    names.update(
        ResultSet=ResultSet, GroupResult=GroupResult, EagerResult=EagerResult, pickle=pickle,
        result_from_tuple=result_from_tuple, assert_will_not_block=assert_will_not_block,
    )  # fmt: skip
    table = rows()
    run.send(table)
    run.results[next(iter(table))].get(timeout=60)  # now the worker is there
    found: dict[str, dict[str, Any]] = {}
    for canvas, expressions in table.items():
        scope = {**names, "r": run.results[canvas]}
        mask = Mask()
        found[canvas] = {
            expression: mask(caught(lambda expression=expression, scope=scope: in_time(expression, scope)))
            for expression in expressions
        }
    return found


def in_time(expression: str, scope: dict[str, Any]) -> Any:
    """Evaluate ``expression``; what hangs raises TimeoutError."""
    signal.alarm(SECONDS)
    try:
        return eval(expression, scope)  # the table above
    finally:
        signal.alarm(0)


def give_up(*_: Any) -> None:
    raise TimeoutError("it hangs")


def main(words: list[str]) -> None:
    if words != ["record"]:
        sys.exit(__doc__)
    redis = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + "/8"
    with tempfile.TemporaryDirectory() as directory:
        run = outcomes.Run("redis/redis", Path(directory), redis, "")
        with run.worker():
            found = said(run)
    parts = []
    for canvas, answers in found.items():
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items())
        parts.append(f"{json.dumps(canvas)}: {{\n{lines}\n}}")
    (HERE / "handles.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
