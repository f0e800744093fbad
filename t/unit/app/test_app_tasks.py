"""Tasks: options and where they come from, running in place, what a run can do."""

from __future__ import annotations

import pickle
import pickletools

import pytest

from celery import Celery, Task, states
from celery._state import _task_stack
from celery.app.task import Context, TaskType, extract_exec_options
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject


@pytest.fixture
def app():
    app = Celery("tasks", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


def make(app, function=lambda: None, **options):
    return app.task(name=options.pop("name", "t"), shared=False, **options)(function)


class TestOptions:
    def test_settings_fill_what_the_task_leaves_open(self, app):
        app.conf.update(
            task_serializer="pickle", task_time_limit=9, task_acks_late=True, task_default_rate_limit="3/m",
            task_track_started=True, task_default_priority=4, task_ignore_result=True,
        )  # fmt: skip
        task = make(app, time_limit=2)

        assert (task.serializer, task.time_limit, task.acks_late, task.rate_limit) == ("pickle", 2, True, "3/m")
        assert (task.track_started, task.priority, task.ignore_result) == (True, 4, True)

    def test_every_option_of_the_table_is_bound(self, app):
        task = make(app)

        assert all(hasattr(task, option) for option, _ in Task.from_config)

    def test_acknowledging_follows_the_older_option_where_the_newer_is_open(self, app):
        assert make(app).acks_on_failure is True
        app.conf.task_acks_on_failure_or_timeout = False
        app.conf.task_acks_on_timeout = True
        task = make(app, name="t2")

        assert (task.acks_on_failure, task.acks_on_timeout) == (False, True)

    def test_annotations_change_tasks(self, app):
        app.conf.task_annotations = {"t": {"rate_limit": "3/s"}, "*": {"extra": 1}}
        task = make(app)

        assert (task.rate_limit, task.extra) == ("3/s", 1)

    def test_an_annotation_may_wrap_a_method(self, app):
        def twice(method):
            return lambda *args: 2 * method(*args)

        app.conf.task_annotations = {"t": {"@run": twice}}

        assert make(app, lambda self, x: x + 1, bind=True)(3) == 8

    def test_a_method_is_wrapped_once(self, app):
        task = make(app, lambda self: 1, bind=True)
        for factor in (2, 3):
            task.add_around("run", lambda method, factor=factor: lambda self: factor * method(self))

        assert task() == 3

    def test_options_for_calls_are_read_from_the_task(self, app):
        task = make(app, queue="q", priority=3, time_limit=5)

        options = extract_exec_options(task)
        assert (options["queue"], options["priority"], options["time_limit"]) == ("q", 3, 5)
        assert set(options) == {
            "queue", "routing_key", "exchange", "priority", "expires", "serializer", "delivery_mode", "compression",
            "time_limit", "soft_time_limit", "immediate", "mandatory",
        }  # fmt: skip

    def test_classes_are_plain_classes(self, app):
        assert type(Task) is TaskType is type
        assert Task.__module__ == "celery.app.task"


class TestRunningInPlace:
    def test_a_task_is_a_function(self, app):
        assert make(app, lambda x, y=1: x + y)(2, y=3) == 5

    def test_a_run_has_a_request_of_its_own(self, app):
        seen = []

        def run(self, x):
            seen.append((self.request.args, self.request.called_directly, _task_stack.top is self))

        task = make(app, run, bind=True)
        task(5)

        assert seen == [((5,), True, True)]
        assert task.request_stack.top is None
        assert task.request.args is None

    def test_the_request_ends_with_an_error(self, app):
        task = make(app, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            task()

        assert task.request_stack.top is None
        assert _task_stack.top is None

    def test_a_class_based_task_runs_once_registered(self, app):
        class Double(Task):
            name = "double"

            def run(self, x):
                return 2 * x

        task = app.register_task(Double())

        assert task(4) == 8
        assert app.tasks["double"] is task

    def test_a_task_without_run_says_so(self, app):
        class Empty(Task):
            name = "empty"

        with pytest.raises(NotImplementedError, match=r"Task empty must define run\(\)"):
            app.register_task(Empty())()


class TestIdentity:
    def test_a_task_is_pickled_by_name(self, app):
        task = make(app)
        app.set_current()
        try:
            assert pickle.loads(pickle.dumps(task)) is app.tasks["t"]
        finally:
            from celery import _state

            _state._tls.current_app = None
        opcodes = [argument for _, argument, _ in pickletools.genops(pickle.dumps(task))]
        assert "celery.app.registry" in opcodes
        assert "_unpickle_task_v2" in opcodes

    def test_its_text_names_task_and_app(self, app):
        assert repr(make(app)).startswith("<@task: t of tasks at 0x")

    def test_its_errors_are_at_hand(self, app):
        task = make(app)

        assert task.MaxRetriesExceededError is MaxRetriesExceededError
        assert task.OperationalError.__name__ == "OperationalError"


class TestSignatures:
    def test_shortcuts_make_calls_that_are_not_made_yet(self, app):
        task = make(app, lambda x, y=0: x)

        assert dict(task.s(1, y=2)) == {
            "task": "t", "args": (1,), "kwargs": {"y": 2}, "options": {}, "subtask_type": None, "immutable": False,
        }  # fmt: skip
        assert task.si(1)["immutable"] is True
        assert task.signature((1,), {"y": 3}, queue="q")["options"] == {"queue": "q"}
        assert task.subtask((1,))["args"] == (1,)
        assert task.s().app is app

    def test_many_calls_in_one(self, app):
        task = make(app)

        assert task.map([1, 2])["task"] == "celery.map"
        assert task.starmap([(1, 2)])["kwargs"]["it"] == [(1, 2)]
        assert task.chunks([(1,), (2,)], 1)["task"] == "celery.chunks"


class TestInsideARun:
    def test_a_state_can_be_stored(self, app):
        def run(self):
            self.update_state(state="PROGRESS", meta={"done": 1})
            return self.AsyncResult(self.request.id).state

        assert make(app, run, bind=True).apply().result == "PROGRESS"

    def test_another_tasks_state_can_be_stored(self, app):
        task = make(app)
        task.update_state(task_id="other", state="HALF", meta=5)

        assert (task.AsyncResult("other").state, task.AsyncResult("other").info) == ("HALF", 5)

    def test_children_are_remembered_unless_told_otherwise(self, app):
        task = make(app)
        task.push_request(id="x")
        task.add_trail("child")
        assert task.request.children == ["child"]

        task.trail = False
        assert task.add_trail("second") == "second"
        assert task.request.children == ["child"]
        task.pop_request()

    def test_events_of_its_own_carry_its_id(self, app):
        sent = []

        class Dispatcher:
            def __enter__(self):
                return self

            def __exit__(self, *exc_info):
                pass

            def send(self, type_, **fields):
                sent.append((type_, fields))

        task = make(app)
        app.events.default_dispatcher = lambda hostname=None: Dispatcher()
        task.push_request(id="x")
        task.send_event("task-progress", done=3)
        task.pop_request()

        ((kind, fields),) = sent
        assert (kind, fields["uuid"], fields["done"], fields["retry"]) == ("task-progress", "x", 3, True)
        assert fields["retry_policy"] == app.conf.task_publish_retry_policy

    def test_a_task_outside_of_a_chord_cannot_add_to_one(self, app):
        task = make(app)
        with pytest.raises(ValueError, match="not member of any chord"):
            task.add_to_chord(task.s())


class TestEager:
    def test_the_outcome_is_a_result(self, app):
        task = make(app, lambda x: x + 1)
        result = task.apply((1,), task_id="my-id")

        assert (result.id, result.state, result.get()) == ("my-id", states.SUCCESS, 2)

    def test_an_error_is_a_result_too(self, app):
        result = make(app, lambda: 1 / 0).apply()

        assert result.state == states.FAILURE
        assert isinstance(result.result, ZeroDivisionError)
        assert "ZeroDivisionError" in result.traceback

    def test_an_error_can_be_let_out(self, app):
        task = make(app, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            task.apply(throw=True)

        app.conf.task_eager_propagates = True
        with pytest.raises(ZeroDivisionError):
            task.apply()

    def test_the_request_says_that_it_is_eager(self, app):
        task = make(app, lambda self, x: dict(vars(self.request)), bind=True)
        link = task.s()
        request = task.apply(
            (1,), task_id="X", retries=1, link=link, link_error=link, headers={"a": 1}, logfile="l", loglevel="INFO",
            queue="q", exchange="e", routing_key="r", priority=3, ignore_result=True, stamped_headers=["s"], s=1, throw=True,
        ).result  # fmt: skip

        expected = {
            "id": "X", "task": "t", "parent_id": None, "root_id": "X", "retries": 1, "is_eager": True, "logfile": "l",
            "loglevel": "INFO", "callbacks": [link], "errbacks": [link], "headers": {"a": 1}, "timelimit": None,
            "ignore_result": True, "stamped_headers": ["s"], "stamps": {"s": [1]}, "args": (1,), "kwargs": {},
            "delivery_info": {"is_eager": True, "exchange": "e", "routing_key": "r", "priority": 3},
            "called_directly": False,
        }  # fmt: skip
        assert {name: request[name] for name in expected} == expected

    def test_always_eager_runs_calls_and_copies_their_arguments(self, app):
        app.conf.task_always_eager = True

        def run(numbers):
            numbers.append(1)
            return numbers

        given = []
        assert make(app, run).delay(given).result == [1]
        assert given == []

    def test_always_eager_refuses_what_could_not_be_sent(self, app):
        from kombu.exceptions import EncodeError

        app.conf.task_always_eager = True
        with pytest.raises(EncodeError):
            make(app, lambda x: x).delay({1})

    def test_the_serializer_of_the_call_counts(self, app):
        app.conf.task_always_eager = True

        assert make(app, type).apply_async(((1,),), serializer="pickle").result is tuple

    def test_a_task_called_by_another_is_its_child(self, app):
        app.conf.task_always_eager = True
        inner = make(app, lambda self: (self.request.root_id, self.request.parent_id), bind=True, name="inner")
        outer = make(app, lambda self: (self.request.id, inner.delay().result), bind=True, name="outer")

        outer_id, (root_id, parent_id) = outer.delay().result
        assert root_id == parent_id == outer_id

    def test_callbacks_run_too(self, app):
        app.conf.task_always_eager = True
        seen = []
        note = make(app, seen.append, name="note")
        make(app, lambda: 5).apply_async(link=note.s())

        assert seen == [5]

    def test_special_endings_have_their_states(self, app):
        def ignore():
            raise Ignore

        def reject():
            raise Reject("no")

        assert make(app, ignore, name="i").apply().state == states.IGNORED
        assert make(app, reject, name="r").apply().state == states.REJECTED


def test_handlers_are_there_to_be_overridden():
    for name in (
        "before_start",
        "on_success",
        "on_retry",
        "on_failure",
        "after_return",
        "on_replace",
        "on_bound",
        "shadow_name",
    ):
        assert callable(getattr(Task, name))


def test_a_shadow_name_may_be_made_for_each_call(app):
    seen = []

    class Named(Task):
        def shadow_name(self, args, kwargs, options):
            seen.append((args, kwargs, options))
            return f"t for {args[0]}"

    task = make(app, lambda x: x, base=Named)
    message = []
    app.amqp.send_task_message = lambda producer, name, built, **options: message.append(built.headers)
    task.apply_async((1,), countdown=2)

    assert seen == [((1,), None, {"countdown": 2})]
    assert message[0]["shadow"] == "t for 1"


def test_a_request_may_be_pushed_by_hand(app):
    task = make(app)
    task.push_request(id="a", args=(1,))
    assert isinstance(task.request, Context)
    assert task.request.id == "a"
    task.pop_request()

    assert task.request.id is None
