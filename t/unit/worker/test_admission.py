"""Signed messages at a worker: what gets in, what does not, and what may come twice."""

from __future__ import annotations

import logging
import time

import certificates
import pytest

from celery import signals
from celery.security.document import SIGNATURE
from celery.transports.dead_letters import DEAD_LETTER_QUEUE
from celery.worker.consumer.admission import Admission, CommandAdmission


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    directory = tmp_path_factory.mktemp("identities")
    return directory, certificates.make(directory, "alice", store=directory / "store")


@pytest.fixture
def signing_app(app, identities):
    from kombu.serialization import registry

    directory, alice = identities
    before = registry._disabled_content_types.copy(), registry._decoders.copy(), registry._encoders.copy()
    app.conf.update(
        task_serializer="auth",
        accept_content=["auth"],
        result_serializer="auth",
        event_serializer="auth",
        security_key=str(alice.key),
        security_certificate=str(alice.certificate),
        security_cert_store=str(directory / "store"),
    )
    app.setup_security()

    @app.task(name="t.add")
    def add(x, y):
        return x + y

    yield app
    registry._disabled_content_types.clear()
    registry._disabled_content_types.update(before[0])
    registry._decoders.clear()
    registry._decoders.update(before[1])
    registry._encoders.clear()
    registry._encoders.update(before[2])


@pytest.fixture
def capture(signing_app, monkeypatch):
    """Return a function that sends a task and gives what was published, to be published again."""
    published = []
    publish = signing_app.amqp.Producer.publish

    def remembering(self, body, **options):
        if SIGNATURE in (options.get("headers") or {}):
            published.append((body, {**options, "headers": dict(options["headers"])}))
        return publish(self, body, **options)

    monkeypatch.setattr(signing_app.amqp.Producer, "publish", remembering)

    def again(number=-1, **headers):
        body, options = published[number]
        with signing_app.producer_or_acquire() as producer:
            publish(producer, body, **{**options, "headers": {**options["headers"], **headers}})

    again.published = published
    return again


def refusals(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "celery.security"]


def dead(app):
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.queue_declare(DEAD_LETTER_QUEUE)
        found = []
        while (message := channel.basic_get(DEAD_LETTER_QUEUE)) is not None:
            found.append(message.headers)
        return found


def test_what_is_signed_runs_and_a_copy_of_it_does_not(signing_app, running, wait_until, capture, caplog):
    with caplog.at_level(logging.INFO), running():
        assert signing_app.tasks["t.add"].delay(1, 2).get(timeout=10) == 3
        capture()
        assert signing_app.tasks["t.add"].delay(2, 2).get(timeout=10) == 4
        wait_until(lambda: refusals(caplog))

    assert len(refusals(caplog)) == 1
    assert "a copy of a message" in refusals(caplog)[0]
    assert "\n" not in refusals(caplog)[0]
    assert caplog.text.count("t.add") == 2 * 2 + 1  # received and succeeded, each twice; refused
    reasons = [headers["x-celeriac-reason"] for headers in dead(signing_app)]
    assert len(reasons) == 1
    assert reasons[0].startswith("refused: ")


def test_what_an_intruder_writes_stays_in_one_line_of_the_log(signing_app, admission, caplog):
    message = Taken(signing_app)
    message.headers.update(task="t\n[2026] INFO all is well", id="x" * 10_000)
    message.delivery_info = {"exchange": "a\nb", "routing_key": "c\nd"}

    assert not admission.admits(message)
    (line,) = refusals(caplog)
    assert "\n" not in line
    assert len(line) < 1000


def test_what_is_not_signed_is_told_to_those_who_listen(signing_app, running, wait_until, capture, caplog):
    told = []

    def on_rejected(sender=None, message=None, exc=None, **kwargs):
        told.append(exc)

    signals.task_rejected.connect(on_rejected)
    try:
        with running():
            signing_app.tasks["t.add"].delay(1, 2).get(timeout=10)
            capture(task="t.evil")
            capture(**{SIGNATURE: None})
            wait_until(lambda: len(told) == 2)
    finally:
        signals.task_rejected.disconnect(on_rejected)
    assert "was changed" in str(told[0])


def test_a_retry_is_a_message_of_its_own(signing_app, running):
    @signing_app.task(name="t.again", bind=True, max_retries=2, default_retry_delay=0.3)
    def again(self):
        if self.request.retries < 2:
            raise self.retry()
        return self.request.retries

    with running():
        assert again.delay().get(timeout=10) == 2


def test_celerys_own_pass_where_the_setting_says_so(signing_app, running, capture, wait_until, caplog):
    signing_app.conf.security_accept_upstream = True
    with running():
        signing_app.tasks["t.add"].delay(1, 2).get(timeout=10)
        body, options = capture.published[-1]
        headers = {name: value for name, value in options["headers"].items() if name != SIGNATURE}
        headers["id"] = "from-celery"
        with signing_app.producer_or_acquire() as producer:
            producer.publish(body, **{**options, "headers": headers})

        assert signing_app.AsyncResult("from-celery").get(timeout=10) == 3
    assert not refusals(caplog)


# -- by hand: the consumer's part of the promise


class Channel:
    def dead_letter(self, message, reason):
        message.reasons.append(reason)


class Taken:
    """A delivery that notes what becomes of it."""

    content_type, content_encoding, acknowledged = "application/data", "utf-8", False

    def __init__(self, app, like=None, redelivered=False, **headers):
        self.channel, self.properties, self.body, self.reasons = Channel(), {}, b"[]", []
        self.headers = {"task": "t.add", "id": "id-1", **headers}
        if like is None:
            app.signing.sign("task", self.body, self.content_type, "utf-8", self.headers, {}, "", "q")
        else:
            self.headers = dict(like.headers)
        self.delivery_info = {"exchange": "", "routing_key": "q", "redelivered": redelivered}


class Consumer:
    """What an admission asks of its consumer."""

    adoption = None

    def __init__(self, app):
        self.app, self.acknowledged = app, []

    def acknowledge(self, message, logger, errors):
        self.acknowledged.append(message)

    def reject(self, message, logger, errors, requeue=False):
        pass

    def acknowledge_now(self, message):
        self.acknowledged.append(message)


@pytest.fixture
def admission(signing_app):
    return Admission(Consumer(signing_app))


def test_a_copy_beside_the_first_is_refused_while_that_runs(signing_app, admission):
    first = Taken(signing_app)
    copy = Taken(signing_app, like=first)

    assert admission.admits(first)
    assert not admission.admits(copy)
    assert copy.reasons
    assert not first.reasons
    admission.acknowledge(first, None, ())
    assert not admission.admits(Taken(signing_app, like=first))


def test_what_the_broker_delivers_again_is_taken_again(signing_app, admission):
    first = Taken(signing_app)
    admission.admits(first)

    assert admission.admits(Taken(signing_app, like=first, redelivered=True))


def test_what_was_done_when_the_broker_delivers_it_again_is_acknowledged_in_peace(signing_app, admission, caplog):
    first = Taken(signing_app)
    admission.admits(first)
    admission.acknowledge(first, None, ())
    again = Taken(signing_app, like=first, redelivered=True)

    assert not admission.admits(again)
    assert admission.consumer.acknowledged == [first, again]
    assert not again.reasons
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("how", ["requeued", "set aside", "connection lost"])
def test_what_went_back_may_come_again(signing_app, admission, how):
    first = Taken(signing_app)
    admission.admits(first)
    if how == "requeued":
        admission.reject(first, None, (), requeue=True)
    elif how == "set aside":
        admission.give_back(first)
    else:
        admission.on_close()

    assert admission.admits(Taken(signing_app, like=first))


def test_what_was_rejected_for_good_may_not(signing_app, admission):
    first = Taken(signing_app)
    admission.admits(first)
    admission.reject(first, None, (), requeue=False)

    assert not admission.admits(Taken(signing_app, like=first))


def test_setting_a_copy_aside_does_not_free_the_first(signing_app, admission):
    first = Taken(signing_app)
    admission.admits(first)
    copy = Taken(signing_app, like=first)
    admission.give_back(copy)

    assert not admission.admits(copy)


def test_without_its_store_of_nonces_a_worker_takes_nothing(signing_app, admission):
    signing_app.conf.security_nonce_store = "redis://127.0.0.1:1/0"
    admission = Admission(admission.consumer)

    with pytest.raises(ConnectionError, match="store of nonces"):
        admission.admits(Taken(signing_app))


# -- commands


def test_a_command_runs_once_and_only_if_it_is_signed(signing_app, running, capture, caplog, wait_until):
    with running():
        assert signing_app.control.ping(timeout=5, limit=1) == [{"w1@test": {"ok": "pong"}}]
        capture()
        capture(**{SIGNATURE: None})
        wait_until(lambda: len(refusals(caplog)) == 2)

    assert "a copy of a command" in refusals(caplog)[0]
    assert "signature" in refusals(caplog)[1]


def test_a_command_from_before_the_worker_started_is_refused(signing_app, caplog):
    command = Taken(signing_app)
    signing_app.signing.sign("command", command.body, command.content_type, "utf-8", command.headers, {}, "", "q")
    young = CommandAdmission(signing_app, clock=lambda: time.time() + 10)

    assert not young.admits(command)
    assert "before this worker started" in caplog.text
    assert CommandAdmission(signing_app).admits(command)


def test_the_end_of_a_lost_task_is_told_only_if_its_message_is_signed(signing_app, admission, caplog):
    lost = Taken(signing_app)
    lost.headers["forged"] = "by somebody who can write to the broker"
    assert admission.vouches_for(lost)
    assert "forged" not in lost.headers

    forged = Taken(signing_app)
    forged.body = b"[[], {}, {}]"
    assert not admission.vouches_for(forged)
    assert "Nobody is told of the end of t.add[id-1]" in caplog.text
