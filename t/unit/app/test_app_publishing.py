"""From a call to a sent message: what is told on the way, what is planned once, and what happens when it fails."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from kombu import Exchange, Producer, Queue
from kombu.exceptions import OperationalError
from kombu.transport import memory

from celery import Celery, signals
from celery.app import publishing
from celery.app.amqp import AMQP
from celery.app.outbox import _PLANS_KEPT
from celery.exceptions import AlwaysEagerIgnored, QueueNotFound


class Broker:
    """What the transport below was given; ``failures`` makes its next publishes fail."""

    def __init__(self):
        self.messages, self.pipelines, self.declared = [], [], []
        self.failures = 0
        self.attempts = 0

    def fail_maybe(self):
        self.attempts += 1
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError("the line is cut")


BROKER = Broker()


def named(message):
    fields = ("body", "headers", "properties", "content_type", "content_encoding", "exchange", "routing_key")
    return dict(zip(fields, message, strict=True))


class DirectPublisher:
    """A publisher as a transport of ours has one; it keeps what it gets."""

    def __init__(self, connection):
        self.connection = connection

    def declare(self, entity):
        if entity not in BROKER.declared:
            BROKER.declared.append(entity)

    def publish(self, *message):
        BROKER.fail_maybe()
        BROKER.messages.append(named(message))

    def publish_many(self, messages):
        BROKER.fail_maybe()
        BROKER.pipelines.append([named(message) for message in messages])


class DirectTransport(memory.Transport):
    Publisher = DirectPublisher
    connection_errors = (*memory.Transport.connection_errors, ConnectionError)


@pytest.fixture
def broker():
    BROKER.__init__()
    return BROKER


@pytest.fixture
def make_app(broker):
    apps = []

    def make(**conf):
        app = Celery("publishing", broker="memory://", set_as_current=False)
        app.conf.update(broker_transport=DirectTransport, **conf)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture
def add(app):
    @app.task(name="proj.add", shared=False)
    def add(x, y=0):
        return x + y

    return add


@pytest.fixture
def heard():
    """Connect receivers with ``heard(signal)``; they end with the test."""
    connected = []

    def hear(signal, receiver=None):
        noted = []

        def note(**fields):
            fields.pop("signal")
            noted.append(fields)

        receiver = receiver or note
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))
        return noted

    yield hear
    for signal, receiver in connected:
        signal.disconnect(receiver)


class TestSignals:
    def test_receivers_learn_of_a_message_before_and_after(self, add, heard):
        before, after, sent = map(heard, (signals.before_task_publish, signals.after_task_publish, signals.task_sent))
        result = add.apply_async((1,), {"y": 2}, foo="bar")

        assert set(before[0]) == {
            "sender", "body", "exchange", "routing_key", "declare", "headers", "properties", "retry_policy",
        }  # fmt: skip
        assert set(after[0]) == {"sender", "body", "headers", "exchange", "routing_key"}
        assert before[0]["sender"] == after[0]["sender"] == "proj.add"
        assert before[0]["properties"] == {
            "correlation_id": result.id, "reply_to": add.app.thread_oid, "foo": "bar",
        }  # fmt: skip
        assert sent == [
            {"sender": "proj.add", "task_id": result.id, "task": "proj.add", "args": (1,), "kwargs": {"y": 2}, "eta": None,
             "taskset": None}
        ]  # fmt: skip

    def test_a_receiver_may_change_the_message(self, add, broker, heard):
        def change(headers=None, properties=None, body=None, **kw):
            headers["added"] = 1
            properties["priority"] = 7
            body[1]["y"] = 5

        heard(signals.before_task_publish, change)
        add.delay(1)

        message = broker.messages[0]
        assert message["headers"]["added"] == 1
        assert message["properties"]["priority"] == 7
        assert '"y": 5' in message["body"]

    def test_a_change_by_a_receiver_is_for_one_message_only(self, add, broker, heard):
        def change(declare=None, retry_policy=None, properties=None, **kw):
            declare.append(Queue("extra"))
            retry_policy["max_retries"] = 99
            properties["x"] = 1

        heard(signals.before_task_publish, change)
        add.delay(1)
        signals.before_task_publish.disconnect(change)
        add.delay(1)

        assert "x" not in broker.messages[1]["properties"]
        assert add.app.conf.task_publish_retry_policy["max_retries"] == 3

    def test_the_old_signal_knows_version_1(self, make_app, heard):
        app = make_app(task_protocol=1)
        sent = heard(signals.task_sent)
        app.send_task("t", (1,), group_id="g")

        assert (sent[0]["args"], sent[0]["taskset"]) == ((1,), "g")

    def test_an_event_tells_of_the_message_where_that_is_set(self, make_app, broker):
        app = make_app(task_send_sent_event=True)
        result = app.send_task("proj.add", (1, 2), countdown=5)

        task, event = broker.messages
        assert event["exchange"] == "celeryev"
        assert event["routing_key"] == "task.sent"
        assert f'"uuid": "{result.id}"' in event["body"]
        assert '"queue": "celery", "exchange": "", "routing_key": "celery"' in event["body"]
        assert task["headers"]["eta"] in event["body"]


class TestPlans:
    def test_a_route_is_looked_up_once_for_a_kind_of_call(self, make_app, broker):
        app = make_app(task_routes={"t": "routed"})
        box = publishing.outbox(app)
        for _ in range(3):
            app.send_task("t", (1,))
            app.send_task("t", (1,), queue="other")

        assert len(box.plans) == 2
        assert [message["routing_key"] for message in broker.messages] == ["routed", "other"] * 3

    def test_a_router_function_is_asked_for_every_call(self, make_app, broker):
        app = make_app(task_routes=lambda name, args, kwargs, options, task=None, **kw: f"q{args[0]}")
        app.send_task("t", (1,))
        app.send_task("t", (2,))

        assert [message["routing_key"] for message in broker.messages] == ["q1", "q2"]

    def test_a_change_of_the_configuration_counts_at_once(self, app, add, broker):
        add.delay(1)
        app.conf.task_routes = {"proj.*": "elsewhere"}
        app.conf.task_compression = "gzip"
        add.delay(1)
        app.conf.task_protocol = 1
        add.delay(1)

        first, second, third = broker.messages
        assert (first["routing_key"], second["routing_key"]) == ("celery", "elsewhere")
        assert second["headers"]["compression"] == "application/x-gzip"
        assert "task" not in third["headers"]

    def test_queues_of_different_objects_do_not_share_a_plan(self, app, add, broker):
        add.apply_async((1,), queue=Queue("one", Exchange("e1", "topic"), "k1"))
        add.apply_async((1,), queue=Queue("two", Exchange("e2", "topic"), "k2"))

        assert [(message["exchange"], message["routing_key"]) for message in broker.messages] == [
            ("e1", "k1"),
            ("e2", "k2"),
        ]

    def test_headers_of_one_call_stay_with_it(self, add, broker):
        add.apply_async((1,), headers={"a": 1}, argsrepr="secret", shadow="s")
        add.delay(2)

        first, second = (message["headers"] for message in broker.messages)
        assert (first["a"], first["argsrepr"], first["shadow"]) == (1, "secret", "s")
        assert ("a" in second, second["argsrepr"], second["shadow"]) == (False, "(2,)", None)

    @pytest.mark.parametrize(("args", "kwargs"), [([], None), ({}, []), ("", "")])
    def test_whatever_is_empty_stands_for_no_arguments(self, app, broker, args, kwargs):
        app.send_task("t", args, kwargs)

        [message] = broker.messages
        assert (message["headers"]["argsrepr"], message["headers"]["kwargsrepr"]) == ("()", "{}")
        assert message["body"].startswith("[[], {}, ")

    def test_arguments_are_shown_as_deep_as_the_setting_says(self, app, add, broker):
        for app.conf.task_repr_maxlevels in (1, 3):
            app.send_task("t", ([[[1]]],), {"k": {"a": {}}})

        assert [(message["headers"]["argsrepr"], message["headers"]["kwargsrepr"]) for message in broker.messages] == [
            ("([...],)", "{'k': {...}}"),
            ("([[[...]]],)", "{'k': {'a': {}}}"),
        ]

    def test_a_route_may_say_when_and_how_long(self, make_app, broker):
        app = make_app(
            task_routes={"t": {"queue": "q", "expires": 60, "countdown": 5, "time_limit": 9, "headers": {"h": 1}}}
        )
        app.send_task("t")
        app.send_task("t", expires=None, time_limit=3, countdown=0)

        first, second = (message["headers"] for message in broker.messages)
        assert first["eta"]
        assert first["expires"]
        assert first["timelimit"] == [9, None]
        assert first["h"] == 1
        assert second["eta"] is None
        assert second["expires"] is None
        assert second["timelimit"] == [3, None]
        assert broker.messages[0]["properties"]["expiration"] == "60000"

    def test_a_queue_that_may_not_be_created_is_refused(self, make_app):
        app = make_app(task_create_missing_queues=False, task_queues=[Queue("a")])

        with pytest.raises(QueueNotFound):
            app.send_task("t", queue="b")

    def test_many_kinds_of_calls_do_not_fill_the_memory(self, app):
        box = publishing.outbox(app)
        for number in range(_PLANS_KEPT + 10):
            app.send_task("t", (), priority=number % 10, routing_key=str(number))

        assert len(box.plans) <= _PLANS_KEPT


class TestTaskOptions:
    def test_a_task_gives_the_options_of_its_calls(self, app, broker):
        task = app.task(
            name="t", shared=False, queue="tq", priority=3, serializer="pickle", expires=30, ignore_result=True
        )(lambda: None)
        task.delay()
        app.send_task("t")
        task.apply_async(queue="other", priority=4, serializer="json", expires=None)

        mine, by_name, overridden = broker.messages
        assert (mine["routing_key"], mine["properties"]["priority"], mine["content_type"]) == (
            "tq", 3, "application/x-python-serialize",
        )  # fmt: skip
        assert (by_name["routing_key"], by_name["content_type"]) == ("tq", "application/x-python-serialize")
        assert mine["headers"]["ignore_result"] is True
        assert by_name["headers"]["ignore_result"] is None
        assert (overridden["routing_key"], overridden["properties"]["priority"], overridden["content_type"]) == (
            "other", 4, "application/json",
        )  # fmt: skip
        assert overridden["headers"]["expires"] is None

    def test_sending_by_name_is_never_eager(self, make_app, broker):
        app = make_app(task_always_eager=True)

        with pytest.warns(AlwaysEagerIgnored):
            app.send_task("t")
        assert broker.messages

    def test_sending_by_name_makes_no_tasks(self, broker):
        app = Celery("later", broker="memory://", set_as_current=False, autofinalize=False)
        app.conf.broker_transport = DirectTransport
        app.send_task("t")

        assert not app.finalized
        assert len(broker.messages) == 1

    def test_an_exchange_object_may_be_given(self, add, broker):
        add.apply_async((1,), exchange=Exchange("e", "topic", delivery_mode=1), routing_key="k")

        assert (broker.messages[0]["exchange"], broker.messages[0]["routing_key"]) == ("e", "k")

    def test_the_queue_is_declared_once(self, add, broker):
        add.delay(1)
        add.delay(2)

        assert [queue.name for queue in broker.declared] == ["celery"]

    def test_the_result_knows_its_id_and_whether_it_is_ignored(self, add):
        assert add.apply_async((1,), task_id="my-id").id == "my-id"
        assert add.apply_async((1,), ignore_result=True).ignored is True

    def test_the_call_of_a_task_that_ignores_its_result_may_ask_for_it(self, app, broker):
        quiet = app.task(lambda: 1, name="quiet", shared=False, ignore_result=True)

        assert quiet.delay().ignored is True
        assert quiet.apply_async(ignore_result=False).ignored is False
        assert [message["headers"]["ignore_result"] for message in broker.messages] == [True, False]

    def test_callbacks_may_be_names_of_tasks(self, add, broker):
        add.apply_async((1,), link="one", link_error=["two"])

        embed = json.loads(broker.messages[0]["body"])[2]
        assert [each["task"] for each in (*embed["callbacks"], *embed["errbacks"])] == ["one", "two"]

    def test_ids_are_random_uuids(self):
        import uuid

        made = {publishing.new_id() for _ in range(1000)}
        assert len(made) == 1000
        assert all(uuid.UUID(each).version == 4 and str(uuid.UUID(each)) == each for each in made)


class TestInsideATask:
    @pytest.fixture
    def running(self, add):
        from celery._state import _task_stack

        def start(**request):
            add.push_request(**{"id": "parent", "root_id": "root", "called_directly": False, **request})
            _task_stack.push(add)

        yield start
        while add.request_stack.top is not None:
            _task_stack.pop()
            add.pop_request()

    def test_a_call_has_a_parent_and_its_root(self, app, add, broker, running):
        running()
        result = app.send_task("t")

        assert (broker.messages[0]["headers"]["parent_id"], broker.messages[0]["headers"]["root_id"]) == (
            "parent",
            "root",
        )
        assert add.request.children == [result]

    def test_the_root_of_a_childs_parent_is_that_parent_if_it_has_none(self, app, broker, running):
        running(root_id=None)
        app.send_task("t")

        assert broker.messages[0]["headers"]["root_id"] == "parent"

    def test_a_child_may_be_left_out_of_the_trail(self, app, add, running):
        running()
        app.send_task("t", add_to_parent=False)

        assert add.request.children == []

    def test_priority_is_inherited_where_that_is_set(self, make_app, broker):
        app = make_app(task_inherit_parent_priority=True)
        task = app.task(name="p", shared=False)(lambda: None)
        from celery._state import _task_stack

        task.push_request(id="x", called_directly=False, delivery_info={"priority": 7})
        _task_stack.push(task)
        try:
            app.send_task("t")
            app.send_task("t", priority=2)
        finally:
            _task_stack.pop()
            task.pop_request()

        assert [message["properties"]["priority"] for message in broker.messages] == [7, 2]


class TestFailures:
    FAST = {"max_retries": 3, "interval_start": 0, "interval_step": 0, "interval_max": 0}

    def test_a_cut_line_is_tried_again_by_the_policy(self, make_app, broker):
        app = make_app(task_publish_retry_policy=self.FAST)
        broker.failures = 3
        app.send_task("t")

        assert broker.attempts == 4
        assert len(broker.messages) == 1

    def test_a_broker_that_is_down_becomes_an_operational_error(self, make_app, broker):
        app = make_app(task_publish_retry_policy=self.FAST)
        broker.failures = 100

        with pytest.raises(OperationalError, match="the line is cut") as caught:
            app.send_task("t")
        assert broker.attempts == 4
        assert isinstance(caught.value.__cause__, ConnectionResetError)

    def test_without_retry_there_is_one_attempt(self, app, broker):
        broker.failures = 100

        with pytest.raises(OperationalError):
            app.send_task("t", retry=False)
        assert broker.attempts == 1

    def test_a_deadline_ends_a_policy_without_end(self, app, broker):
        broker.failures = 10**9
        started_at = time.monotonic()

        with pytest.raises(OperationalError):
            app.send_task(
                "t", timeout=0.05, retry_policy={"max_retries": None, "interval_start": 0.01, "interval_max": 0.01}
            )
        assert time.monotonic() - started_at < 5

    def test_an_errback_hears_of_each_failure(self, app, broker):
        broker.failures = 2
        told = []
        app.send_task("t", retry_policy={**self.FAST, "errback": lambda error, interval: told.append(str(error))})

        assert told == ["the line is cut"] * 2

    def test_the_error_names_the_broker_without_its_password(self, make_app, broker):
        app = make_app(broker_url="memory://me:secret@host//")
        broker.failures = 1

        with pytest.raises(OperationalError, match=r"\(broker: .*me:\*\*@host") as caught:
            app.send_task("t", retry=False)
        assert "secret" not in str(caught.value)

    def test_an_error_of_another_kind_is_not_tried_again(self, app, broker, monkeypatch):
        def refuse(self, *message):
            raise ZeroDivisionError

        monkeypatch.setattr(DirectPublisher, "publish", refuse)
        with pytest.raises(ZeroDivisionError):
            app.send_task("t")


class CutChannel(memory.Channel):
    """A channel of a broker that is gone."""

    def basic_publish(self, *args, **kwargs):
        BROKER.attempts += 1
        raise ConnectionResetError("the line is cut")


class CutTransport(memory.Transport):
    Channel = CutChannel
    connection_errors = (*memory.Transport.connection_errors, ConnectionError)
    recoverable_connection_errors = (ConnectionError,)


class TestFailuresOfAKombuTransport:
    @pytest.fixture
    def app(self, broker):
        app = Celery("cut", broker="memory://", set_as_current=False)
        app.conf.update(broker_transport=CutTransport)
        yield app
        app.close()

    def test_a_deadline_ends_a_policy_without_end(self, app, broker):
        started_at = time.monotonic()
        told = []
        policy = {
            "max_retries": None, "interval_start": 0, "interval_max": 0, "errback": lambda *args: told.append(args),
        }  # fmt: skip
        with pytest.raises(OperationalError, match="the line is cut"):
            app.send_task("t", timeout=0.05, retry_policy=policy)

        assert time.monotonic() - started_at < 5
        assert broker.attempts > 1
        assert len(told) >= 1

    def test_the_error_names_the_broker(self, app):
        with pytest.raises(OperationalError, match=r"the line is cut \(broker: "):
            app.send_task("t", retry=False)

    def test_receivers_see_the_policy_as_it_was_given(self, app, heard):
        before = heard(signals.before_task_publish)
        with pytest.raises(OperationalError):
            app.send_task("t", retry_policy={"max_retries": 0})

        assert "errback" not in before[0]["retry_policy"]


class TestLanes:
    def test_an_explicit_producer_is_used(self, app, add, broker):
        with app.connection_for_write() as connection:
            seen = []

            class Watching(Producer):
                def publish(self, body, **options):
                    seen.append((body, options))

            add.apply_async((1,), producer=Watching(connection))

        assert len(seen) == 1
        assert broker.messages == []

    def test_an_explicit_connection_is_used(self, app, add, broker):
        with app.connection_for_write() as connection:
            add.apply_async((1,), connection=connection)
            queue = Queue("celery")(connection.default_channel)
            assert queue.get(no_ack=True).headers["task"] == "proj.add"

        assert broker.messages == []

    def test_who_wraps_the_producer_of_kombu_sees_every_message(self, app, broker, monkeypatch):
        seen = []
        publish = Producer.publish

        def wrapper(self, body, *args, **kwargs):
            seen.append(body)
            return publish(self, body, *args, **kwargs)

        app.send_task("t", (1,))
        monkeypatch.setattr(Producer, "publish", wrapper)
        app.send_task("t", (2,))
        monkeypatch.undo()
        app.send_task("t", (3,))

        assert [body[0] for body in seen] == [(2,)]
        assert len(broker.messages) == 2

    @pytest.mark.parametrize("urls", ["memory://a;memory://b", ["memory://a", "memory://b"]])
    def test_several_brokers_are_left_to_kombu(self, make_app, broker, urls):
        app = make_app(broker_url=urls)
        app.send_task("t")

        assert broker.messages == []

    def test_each_thread_has_a_lane_over_one_publisher(self, app):
        box = publishing.outbox(app)
        lanes = [box.direct()]
        thread = threading.Thread(target=lambda: lanes.append(box.direct()))
        thread.start()
        thread.join()

        assert lanes[0] is box.direct()
        assert lanes[0] is not lanes[1]
        assert lanes[0].publisher is lanes[1].publisher

    def test_a_forked_child_opens_a_publisher_of_its_own(self, app):
        box = publishing.outbox(app)
        before = box.direct().publisher
        pid = os.fork()
        if pid == 0:
            os._exit(0 if box.direct().publisher is not before else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_a_builder_of_the_users_own_gets_all_options(self, make_app, broker):
        got = {}

        class CustomAMQP(AMQP):
            def as_task_v2(self, task_id, name, *args, **options):
                got.update(options)
                message = super().as_task_v2(task_id, name, *args, **options)
                message.headers["custom"] = options.get("tenant")
                return message

        app = make_app(task_routes={"t": {"queue": "q", "priority": 2}})
        app.amqp = CustomAMQP(app)
        app.send_task("t", (), tenant="me")

        assert broker.messages[0]["headers"]["custom"] == "me"
        assert (got["queue"].name, got["priority"]) == ("q", 2)


class TestBatches:
    def test_a_batch_goes_out_in_one_pipeline(self, app, add, broker):
        with publishing.batch(app):
            results = [add.delay(number) for number in range(5)]
            assert broker.pipelines == []

        (pipeline,) = broker.pipelines
        assert [message["headers"]["id"] for message in pipeline] == [result.id for result in results]
        assert broker.messages == []

    def test_a_batch_inside_of_a_batch_is_part_of_it(self, app, add, broker):
        with publishing.batch(app):
            add.delay(1)
            with publishing.batch(app):
                add.delay(2)
            assert broker.pipelines == []

        assert [len(pipeline) for pipeline in broker.pipelines] == [2]

    def test_after_an_error_the_rest_is_not_sent(self, app, add, broker):
        with pytest.raises(ZeroDivisionError), publishing.batch(app):
            add.delay(1)
            raise ZeroDivisionError
        add.delay(2)

        assert broker.pipelines == []
        assert len(broker.messages) == 1

    def test_a_large_batch_goes_in_pieces(self, app, add, broker):
        from celery.app.lanes import BATCH_SIZE

        with publishing.batch(app):
            for number in range(BATCH_SIZE + 3):
                add.delay(number)

        assert [len(pipeline) for pipeline in broker.pipelines] == [BATCH_SIZE, 3]

    def test_other_threads_are_not_part_of_it(self, app, add, broker):
        with publishing.batch(app):
            thread = threading.Thread(target=add.delay, args=(1,))
            thread.start()
            thread.join()
            assert len(broker.messages) == 1

    def test_a_batch_that_fails_is_an_operational_error(self, make_app, broker):
        app = make_app(task_publish_retry=False)
        broker.failures = 1

        with pytest.raises(OperationalError), publishing.batch(app):
            app.send_task("t")

    def test_who_waits_for_the_end_of_each_publish_gets_it(self, app, add, broker, heard):
        heard(signals.after_task_publish)
        with publishing.batch(app):
            add.delay(1)
            assert len(broker.messages) == 1

    def test_a_transport_without_publisher_uses_one_producer_for_all(self, monkeypatch):
        app = Celery("plain", broker="memory://", set_as_current=False)
        app.send_task("t", queue="one_producer")
        acquired = []
        acquire = app.producer_pool.acquire

        def counting(*args, **kwargs):
            acquired.append(1)
            return acquire(*args, **kwargs)

        monkeypatch.setattr(app.producer_pool, "acquire", counting)
        with publishing.batch(app):
            app.send_task("t", queue="one_producer")
            app.send_task("t", queue="one_producer")

        assert len(acquired) == 1
        with app.connection_for_write() as connection:
            queue = Queue("one_producer")(connection.default_channel)
            assert [queue.get(no_ack=True) is not None for _ in range(4)] == [True, True, True, False]
        app.close()
