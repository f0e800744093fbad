"""Retrying and replacing: what is sent again, when it ends, and what follows."""

from __future__ import annotations

import datetime as dt

import pytest

from celery import Celery, chain, chord, group
from celery.app import retrying
from celery.app.autoretry import add_autoretry_behaviour
from celery.backends.errbacks import last_task
from celery.exceptions import Ignore, ImproperlyConfigured, MaxRetriesExceededError, Reject, Retry


class Sent(list):
    """The messages that would have gone out: ``(headers, body, options)``."""


@pytest.fixture
def sent():
    return Sent()


@pytest.fixture
def app(sent):
    app = Celery("retrying", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.amqp.send_task_message = lambda producer, name, message, **options: sent.append(
        (message.headers, message.body, options)
    )
    yield app
    app.close()


@pytest.fixture
def add(app):
    return app.task(name="add", shared=False)(lambda x=0, y=0: x + y)


@pytest.fixture
def task(app):
    return app.task(name="t", shared=False, bind=True, max_retries=3, default_retry_delay=7)(lambda self, x, y=2: None)


REQUEST = {
    "id": "TID", "args": (1,), "kwargs": {"y": 5}, "called_directly": False, "is_eager": False, "retries": 0,
    "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False},
    "origin": "gen1@h", "root_id": "RID", "parent_id": "PID", "reply_to": "RT", "correlation_id": "TID",
    "headers": None, "timelimit": [None, None],
}  # fmt: skip


class running:
    """A request in progress."""

    def __init__(self, task, **fields):
        self.task, self.fields = task, {**REQUEST, **fields}

    def __enter__(self):
        self.task.push_request(**self.fields)

    def __exit__(self, *exc_info):
        self.task.pop_request()


class TestRetry:
    def test_the_same_call_is_sent_later_with_one_more_retry(self, task, sent):
        with running(task), pytest.raises(Retry, match="Retry in 7s") as caught:
            task.retry()

        ((headers, body, options),) = sent
        assert (headers["id"], headers["retries"], headers["root_id"], headers["parent_id"]) == ("TID", 1, "RID", "PID")
        assert (headers["origin"], headers["ignore_result"]) == ("gen1@h", False)
        assert body[:2] == ((1,), {"y": 5})
        assert (options["queue"].name, options["priority"]) == ("celery", 0)
        assert caught.value.when == 7
        assert caught.value.is_eager is False

    def test_arguments_and_time_may_be_new(self, task, sent):
        with running(task), pytest.raises(Retry, match="Retry in 3s"):
            task.retry(args=(9,), kwargs={"y": 1}, countdown=3)

        assert sent[0][1][:2] == ((9,), {"y": 1})

    def test_at_once_is_at_once(self, task, sent):
        with running(task), pytest.raises(Retry, match="Retry in 0s"):
            task.retry(countdown=0)

        assert sent[0][0]["eta"] is None

    def test_a_time_goes_before_the_default_delay(self, task, sent):
        with running(task), pytest.raises(Retry, match="Retry at 2030-01-01 00:00:00"):
            task.retry(eta=dt.datetime(2030, 1, 1))

        assert sent[0][0]["eta"] == "2030-01-01T00:00:00"

    def test_options_of_the_retry_go_before_the_old_ones(self, task, sent):
        with running(task), pytest.raises(Retry):
            task.retry(queue="other", priority=4, headers={"x": 1}, expires=9, shadow="z", serializer="pickle")

        ((headers, _, options),) = sent
        assert (options["queue"].name, options["priority"], options["serializer"]) == ("other", 4, "pickle")
        assert (headers["shadow"], options["headers"]) == ("z", {"x": 1})
        assert headers["expires"]

    def test_what_the_request_carried_is_carried_on(self, task, add, sent):
        carried = {
            "callbacks": [add.s(1)], "errbacks": [add.s(2)], "chain": [add.s(3)], "chord": add.s(4), "group": "G", "group_index": 2,
            "timelimit": [5, 3], "expires": "2031-01-01T00:00:00+00:00", "headers": {"h": 1}, "shadow": "sh", "stamps": {"a": 1},
            "stamped_headers": ["a"], "ignore_result": True, "replaced_task_nesting": 2,
            "delivery_info": {"exchange": "", "routing_key": "myq", "priority": 6},
        }  # fmt: skip
        with running(task, **carried), pytest.raises(Retry):
            task.retry()

        ((headers, (_, _, embed), options),) = sent
        assert (embed["callbacks"], embed["errbacks"], embed["chain"], embed["chord"]) == (
            [add.s(1)], [add.s(2)], [add.s(3)], add.s(4),
        )  # fmt: skip
        assert (headers["group"], headers["group_index"], headers["timelimit"]) == ("G", 2, [5, 3])
        assert (headers["expires"], headers["shadow"], headers["stamps"]) == (
            "2031-01-01T00:00:00+00:00",
            "sh",
            {"a": 1},
        )
        assert (headers["ignore_result"], headers["replaced_task_nesting"]) == (True, 2)
        assert (options["queue"].name, options["priority"], options["headers"]) == ("myq", 6, {"h": 1})

    def test_a_message_that_came_through_an_exchange_goes_there_again(self, task, sent):
        with running(task, delivery_info={"exchange": "ex", "routing_key": "rk"}), pytest.raises(Retry):
            task.retry()

        assert (sent[0][2]["exchange"], sent[0][2]["routing_key"]) == ("ex", "rk")

    def test_without_delivery_info_the_route_decides(self, task, sent):
        with running(task, delivery_info=None), pytest.raises(Retry):
            task.retry()

        assert sent[0][2]["queue"].name == "celery"

    def test_the_reason_is_told(self, task):
        with running(task), pytest.raises(Retry, match=r"Retry in 7s: ValueError\('again'\)") as caught:
            task.retry(exc=ValueError("again"))

        assert isinstance(caught.value.exc, ValueError)

    def test_it_may_return_instead_of_raising(self, task, sent):
        with running(task):
            assert isinstance(task.retry(throw=False), Retry)

        assert len(sent) == 1

    def test_a_retry_that_cannot_be_sent_rejects_the_message(self, app, task):
        def fail(*args, **kwargs):
            raise OSError("no broker")

        app.amqp.send_task_message = fail
        with running(task), pytest.raises(Reject) as caught:
            task.retry()

        assert caught.value.requeue is False
        assert isinstance(caught.value.reason, OSError)


class TestTheEndOfRetries:
    def test_no_retry_is_left(self, task, sent):
        with running(task, retries=3), pytest.raises(MaxRetriesExceededError) as caught:
            task.retry()

        assert str(caught.value) == "Can't retry t[TID] args:(1,) kwargs:{'y': 5}"
        assert (caught.value.task_args, caught.value.task_kwargs) == ((1,), {"y": 5})
        assert sent == []

    def test_the_error_behind_it_is_raised_instead(self, task):
        with running(task, retries=3), pytest.raises(ValueError, match="x"):
            task.retry(exc=ValueError("x"))

    def test_the_limit_of_one_retry_goes_before_the_tasks(self, task):
        with running(task, retries=1), pytest.raises(MaxRetriesExceededError):
            task.retry(max_retries=1)

    def test_no_limit_is_no_limit(self, task, sent):
        task.max_retries = None
        with running(task, retries=1000), pytest.raises(Retry):
            task.retry()

        assert sent[0][0]["retries"] == 1001

    def test_called_as_a_function_the_error_goes_to_the_caller(self, task, sent):
        with pytest.raises(ValueError, match="x"):
            task.retry(exc=ValueError("x"))
        with pytest.raises(Retry, match="Task can be retried") as caught:
            try:
                1 / 0
            except ZeroDivisionError:
                task.retry()

        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert sent == []


class TestEagerRetry:
    def test_retries_run_at_once_until_none_is_left(self, app):
        runs = []

        def run(self, x):
            runs.append((self.request.retries, x))
            raise self.retry(exc=ValueError("v"), countdown=50, kwargs={}, args=(x + 1,))

        result = app.task(name="e", shared=False, bind=True, max_retries=2)(run).apply((0,))

        assert runs == [(0, 0), (1, 1), (2, 2)]
        assert isinstance(result.result, ValueError)

    def test_a_retry_that_succeeds_gives_its_value(self, app):
        def run(self):
            if self.request.retries < 2:
                raise self.retry()
            return self.request.retries

        assert app.task(name="e", shared=False, bind=True)(run).apply().get() == 2

    def test_a_retry_can_be_let_out(self, app):
        def run(self):
            raise self.retry()

        with pytest.raises(Retry):
            app.task(name="e", shared=False, bind=True)(run).apply(throw=True)


class TestAutoretry:
    def declare(self, app, run=None, **options):
        def fail(self, error):
            raise error

        return app.task(name="auto", shared=False, bind=True, typing=False, **options)(run or fail)

    def countdowns(self, task, sent):
        for retries in range(5):
            with running(task, retries=retries), pytest.raises(Retry) as caught:
                task.run(ValueError("x"))
            yield caught.value.when

    def test_listed_errors_are_retried_and_others_not(self, app):
        task = self.declare(app, autoretry_for=(ValueError,), dont_autoretry_for=(UnicodeError,))
        with running(task):
            with pytest.raises(Retry):
                task.run(ValueError())
            with pytest.raises(UnicodeError):
                task.run(UnicodeError())
            with pytest.raises(KeyError):
                task.run(KeyError())

    def test_the_delay_doubles_up_to_a_maximum(self, app, sent):
        task = self.declare(
            app,
            autoretry_for=(ValueError,),
            retry_backoff=5,
            retry_jitter=False,
            retry_backoff_max=12,
            max_retries=None,
        )

        assert list(self.countdowns(task, sent)) == [5, 10, 12, 12, 12]

    def test_true_is_a_factor_of_one(self, app, sent):
        task = self.declare(app, autoretry_for=(ValueError,), retry_backoff=True, retry_jitter=False, max_retries=None)

        assert list(self.countdowns(task, sent)) == [1, 2, 4, 8, 16]

    def test_jitter_stays_below_the_full_delay(self, app, sent):
        task = self.declare(app, autoretry_for=(ValueError,), retry_backoff=8, max_retries=None)

        for full, actual in zip([8, 16, 32, 64, 128], self.countdowns(task, sent), strict=True):
            assert 0 <= actual <= full

    def test_backoff_goes_before_a_fixed_countdown(self, app, sent):
        task = self.declare(
            app, autoretry_for=(ValueError,), retry_backoff=2, retry_jitter=False, retry_kwargs={"countdown": 1},
            max_retries=None,
        )  # fmt: skip

        assert next(self.countdowns(task, sent)) == 2

    def test_retry_kwargs_are_passed_on(self, app, sent):
        task = self.declare(app, autoretry_for=(ValueError,), retry_kwargs={"max_retries": 1, "countdown": 9})
        with running(task), pytest.raises(Retry, match="in 9s"):
            task.run(ValueError("x"))
        with running(task, retries=1), pytest.raises(ValueError, match="x"):
            task.run(ValueError("x"))

    def test_after_the_last_retry_the_error_itself_comes_out(self, app):
        task = self.declare(app, autoretry_for=(ValueError,), max_retries=2)
        with running(task, retries=2), pytest.raises(ValueError, match="x"):
            task.run(ValueError("x"))

    def test_what_the_task_decides_itself_is_left_alone(self, app, sent):
        def run(self, what):
            raise what

        task = self.declare(app, run, autoretry_for=(Exception,))
        for what in (Ignore(), Retry("own")):
            with running(task), pytest.raises(type(what)) as caught:
                task.run(what)
            assert caught.value is what
        assert sent == []

    def test_an_own_limit_is_not_overrun(self, app, sent):
        def run(self):
            self.retry(max_retries=0)

        task = self.declare(app, run, autoretry_for=(Exception,), max_retries=9)
        with running(task), pytest.raises(MaxRetriesExceededError):
            task.run()
        assert sent == []

    def test_a_plain_call_gets_the_error(self, app):
        task = self.declare(app, autoretry_for=(ValueError,))
        with pytest.raises(ValueError, match="x"):
            task(ValueError("x"))

    def test_a_task_is_wrapped_once(self, app):
        task = self.declare(app, autoretry_for=(ValueError,))
        run = task.run
        add_autoretry_behaviour(task)

        assert task.run is run

    def test_without_errors_nothing_is_wrapped(self, app):
        task = self.declare(app, retry_backoff=True)

        assert not hasattr(task, "_orig_run")


class TestReplace:
    def test_a_signature_runs_under_the_tasks_id(self, task, add, sent):
        with running(task), pytest.raises(Ignore, match="Replaced by new task"):
            task.replace(add.s(1, 2))

        ((headers, body, _),) = sent
        assert (headers["task"], headers["id"], headers["root_id"]) == ("add", "TID", "RID")
        assert headers["replaced_task_nesting"] == 1
        assert body[0] == (1, 2)

    def test_what_was_to_follow_follows_the_replacement(self, task, add, sent):
        carried = {
            "callbacks": [dict(add.s(8))], "errbacks": [dict(add.s(9))], "group": "G", "group_index": 1, "chord": add.s(4),
            "replaced_task_nesting": 1,
        }  # fmt: skip
        with running(task, **carried), pytest.raises(Ignore):
            task.replace(add.s(1, 2))

        ((headers, (_, _, embed), _),) = sent
        assert [callback["args"] for callback in embed["callbacks"]] == [(8,)]
        assert [errback["args"] for errback in embed["errbacks"]] == [(9,)]
        assert embed["chord"]["args"] == (4,)
        assert (headers["group"], headers["group_index"], headers["replaced_task_nesting"]) == ("G", 1, 2)

    def test_in_a_chain_the_rest_comes_after_it(self, task, add, sent):
        rest = [dict(add.s(2).set(task_id="last")), dict(add.s(5).set(task_id="next"))]
        with running(task, chain=rest), pytest.raises(Ignore):
            task.replace(add.s(1, 2))

        ((headers, (_, _, embed), _),) = sent
        assert headers["id"] == "TID"
        assert [step["options"]["task_id"] for step in embed["chain"]] == ["last", "next"]
        assert [step["options"]["replaced_task_nesting"] for step in embed["chain"]] == [1, 1]

    def test_a_chain_ends_under_the_tasks_id(self, task, add, sent):
        with running(task), pytest.raises(Ignore):
            task.replace(chain(add.s(1, 2), add.s(3)))

        ((headers, (_, _, embed), _),) = sent
        assert headers["id"] != "TID"
        assert [step["options"]["task_id"] for step in embed["chain"]] == ["TID"]

    def test_a_group_is_gathered_under_the_tasks_id(self, task, add, sent):
        with running(task, callbacks=[dict(add.s(8))]), pytest.raises(Ignore):
            task.replace(group(add.s(1, 2), add.s(3, 4)))

        bodies = [body[2]["chord"] for _, body, _ in sent]
        assert [body["task"] for body in bodies] == ["celery.accumulate"] * 2
        assert {body["options"]["task_id"] for body in bodies} == {"TID"}
        assert [callback["args"] for callback in bodies[0]["options"]["link"]] == [(8,)]

    @pytest.mark.parametrize(
        "many",
        [
            lambda add: chain(add.s(1, 2), group(add.s(3), add.s(4))),
            lambda add: chain(add.s(1, 2), chain(add.s(1), group(add.s(3), add.s(4)))),
            lambda add: chord([add.s(1, 2), add.s(3, 4)], group(add.si(5, 6), add.si(7, 8))),
            lambda add: chord([add.s(1, 2), add.s(3, 4)], chain(add.si(1, 1), group(add.s(5), add.s(7)))),
            lambda add: add.chunks([(1, 2), (3, 4)], 1),
        ],
        ids=["chain to group", "chain to chain to group", "chord to group", "chord to chain to group", "chunks"],
    )
    def test_whatever_gives_many_values_is_gathered_under_the_id_of_the_task(self, app, task, add, many):
        app.set_current()
        task.push_request(id="T", called_directly=False, errbacks=[dict(add.s())], callbacks=[dict(add.s(1))])
        replacement = retrying.replacement(task, many(add))
        task.pop_request()

        assert replacement.freeze().id == "T"
        assert last_task(replacement)["task"] == "celery.accumulate"

    def test_what_is_no_signature_cannot_replace(self, task):
        with pytest.raises(TypeError, match="What is to replace t is no signature, but str: 'other'"):
            task.replace("other")

    def test_an_empty_chain_cannot_replace(self, task):
        with running(task), pytest.raises(ImproperlyConfigured, match="empty chain"):
            task.replace(chain())

    def test_a_member_of_another_chord_cannot_replace(self, task, add):
        with running(task), pytest.raises(ImproperlyConfigured, match="must not be part of a chord"):
            task.replace(add.s(1).set(chord=add.s()))

    def test_an_eager_run_gives_the_outcome(self, task, add, sent):
        with running(task, is_eager=True):
            assert task.replace(add.s(1, 2)) == 3

        assert sent == []

    def test_a_task_may_say_how_its_replacement_is_sent(self, app, add, sent):
        from celery import Task

        class Custom(Task):
            def on_replace(self, sig):
                return ("kept", sig.task)

        task = app.task(name="c", shared=False, bind=True, base=Custom)(lambda self: None)
        with running(task):
            assert task.replace(add.s(1)) == ("kept", "add")


class TestChordMembers:
    def test_a_task_is_added_to_the_chord_of_the_current_one(self, app, task, add, sent, monkeypatch):
        counted = []
        monkeypatch.setattr(type(app.backend), "add_to_chord", lambda self, group, result: counted.append(group))
        with running(task, chord=add.s(4), group="G", group_index=1):
            task.add_to_chord(add.s(1))
            lazy = task.add_to_chord(add.s(2), lazy=True)

        ((headers, (_, _, embed), _),) = sent
        assert (headers["group"], headers["root_id"], embed["chord"]["args"]) == ("G", "RID", (4,))
        assert counted == ["G", "G"]
        assert lazy.id


class TestSignatureFromRequest:
    def test_the_request_becomes_a_call(self, task):
        with running(task):
            signature = task.signature_from_request()
            changed = task.signature_from_request(args=(7,), kwargs={}, queue="qq", foo=1)

        assert signature["args"] == (1,)
        assert signature["options"]["task_id"] == "TID"
        assert (signature["options"]["queue"], signature["options"]["priority"]) == ("celery", 0)
        assert (changed["args"], changed["kwargs"]) == ((7,), {})
        assert (changed["options"]["queue"], changed["options"]["foo"]) == ("qq", 1)

    def test_its_older_name_is_the_same(self, task):
        with running(task):
            assert dict(task.subtask_from_request()) == dict(task.signature_from_request())
