"""What the signature over a whole message covers, with messages as a broker in memory and as Redis deliver them."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from celery import Celery
from celery.exceptions import SecurityError
from celery.security.certificate import Certificate, FSCertStore
from celery.security.document import COVERED, SIGNATURE, read_header
from celery.security.key import PrivateKey
from celery.security.signing import CLOCK_SKEW_SECONDS, COMMAND, COMMAND_SECONDS, TASK, Signing, check_queue
from celery.transports.message import Message


@pytest.fixture
def app(directory):
    app = Celery("signing", broker="memory://", set_as_current=False)
    app.conf.update(
        task_serializer="auth",
        accept_content=["auth"],
        task_default_queue=f"q-{uuid.uuid4().hex[:8]}",
        security_key=str(directory / "alice.key"),
        security_certificate=str(directory / "store" / "alice.pem"),
        security_cert_store=str(directory / "store"),
    )
    app.setup_security()
    yield app
    app.close()


@pytest.fixture
def sent(app):
    """``sent(name, ...)``: send a task and return the message as it lay in the queue."""

    def send(name="t.add", args=(1, 2), **options):
        app.send_task(name, args, **options)
        with app.connection_for_read() as connection:
            return connection.SimpleQueue(app.amqp.default_queue).get(timeout=5)

    return send


def at(app, seconds):
    """Set the clock of the app's signing to so many seconds from now."""
    app.signing._clock = lambda: time.time() + seconds


def test_a_message_as_it_was_sent_is_good(app, sent):
    verified = app.signing.check(TASK, sent())

    assert len(verified.nonce) == 32
    assert verified.to == ("", app.conf.task_default_queue)
    assert set(COVERED) <= set(verified.headers)


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 60},
        {"expires": 60},
        {"eta": datetime(2100, 1, 1, tzinfo=timezone.utc)},
        {"compression": "gzip"},
        {"time_limit": 10, "soft_time_limit": 5},
        {"headers": {"trace": {"a": [1, (2.5, None)]}, "X-Mine": "é"}},
        {"stamped_headers": ["who"], "who": ["me"]},
        {
            "shadow": "other",
            "priority": 3,
            "reply_to": "there",
            "root_id": "r",
            "parent_id": "p",
            "ignore_result": True,
        },
    ],
    ids=lambda options: next(iter(options)),
)
def test_whatever_a_call_says_is_covered_and_good(app, sent, options):
    assert app.signing.check(TASK, sent(**options))


def test_two_messages_have_nonces_of_their_own(app, sent):
    assert app.signing.check(TASK, sent()).nonce != app.signing.check(TASK, sent()).nonce


@pytest.mark.parametrize("name", COVERED)
def test_no_header_can_be_changed_or_taken_away(app, sent, name):
    message = sent(headers={name: "first"} if name == "lang" else None)
    value = message.headers[name]
    for other in ("changed", None, [], 7):
        if other == value:
            continue
        message.headers[name] = other
        with pytest.raises(SecurityError, match="was changed"):
            app.signing.check(TASK, message)
    if value is not None:
        del message.headers[name]
        with pytest.raises(SecurityError, match="was changed"):
            app.signing.check(TASK, message)


@pytest.mark.parametrize("change", ["trace", "body", "content_type", "content_encoding", "reply_to", "correlation_id"])
def test_nothing_else_that_decides_can_be_changed(app, sent, change):
    message = sent(headers={"trace": 1})
    if change == "trace":
        message.headers["trace"] = 2
    elif change == "body":
        message.body = bytes(message.body) + b" "
    elif change in ("content_type", "content_encoding"):
        setattr(message, change, "application/json" if change == "content_type" else "binary")
    else:
        message.properties[change] = "somebody else"

    with pytest.raises(SecurityError, match="was changed"):
        app.signing.check(TASK, message)


def test_a_header_that_was_not_signed_is_not_believed(app, sent):
    message = sent(headers={"trace": 1})
    message.headers.update(
        {"callbacks": [{"task": "evil"}], "is_eager": True, "x-celeriac-lost": 1, "redelivered": True}
    )
    headers = app.signing.check(TASK, message).headers

    assert headers["trace"] == 1
    assert headers["x-celeriac-lost"] == 1
    assert headers["redelivered"] is True
    assert "callbacks" not in headers
    assert "is_eager" not in headers


@pytest.mark.parametrize("came", [{"exchange": "", "routing_key": "other"}, {"exchange": "x", "routing_key": None}, {}])
def test_a_message_for_elsewhere_is_refused(app, sent, came):
    message = sent()
    message.delivery_info = came

    with pytest.raises(SecurityError, match="came by"):
        app.signing.check(TASK, message)


def test_delayed_delivery_hands_a_message_from_exchange_to_exchange(app):
    for came, is_good in (("celery_delayed_delivery", True), ("other", False)):
        message = signed_by_hand(app, exchange="celery_delayed_27", routing_key="0.1.q")
        message.delivery_info = {"exchange": came, "routing_key": "0.1.q"}
        if is_good:
            assert app.signing.check(TASK, message)
        else:
            with pytest.raises(SecurityError):
                app.signing.check(TASK, message)


def signed_by_hand(app, kind=TASK, exchange="", routing_key="q", headers=None, signing=None):
    headers = {"task": "t.add", "id": "id-1", **(headers or {})}
    (signing or app.signing).sign(kind, "[]", "application/data", "utf-8", headers, {}, exchange, routing_key)
    envelope = {
        "body": "[]",
        "headers": headers,
        "properties": {"delivery_info": {"exchange": exchange, "routing_key": routing_key}},
        "content-type": "application/data",
        "content-encoding": "utf-8",
    }
    return Message(envelope, None, "tag", "q")


def test_values_that_change_their_type_on_the_way_stay_good(app):
    moment = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
    headers = {
        "pair": (1, 2),
        "when": moment,
        "who": uuid.UUID(int=5),
        "much": Decimal("1.5"),
        "raw": b"x",
        "set": {2, 1},
    }
    message = signed_by_hand(app, headers=headers)
    message.headers.update(
        pair=[1, 2],
        when=datetime(2030, 1, 2, 1, 4, 5, tzinfo=timezone.utc),  # AMQP has whole seconds
        who=str(uuid.UUID(int=5)),
        much="1.5",
        raw="x",
        set=[1, 2],
    )

    assert app.signing.check(TASK, message)


def test_a_task_is_no_command_and_a_command_is_no_task(app):
    with pytest.raises(SecurityError, match="was changed"):
        app.signing.check(COMMAND, signed_by_hand(app))
    with pytest.raises(SecurityError, match="was changed"):
        app.signing.check(TASK, signed_by_hand(app, COMMAND))


@pytest.mark.parametrize(
    "header",
    [
        None,
        5,
        "",
        "{}",
        "[]",
        "junk",
        "[" * 100_000,
        '{"v": 2}',
        '{"v":1,"key":5,"at":1,"nonce":"n","to":[1,2],"names":[],"sig":""}',
    ],
    ids=range(9),
)
def test_a_header_that_is_no_signature_is_refused(app, header):
    message = signed_by_hand(app)
    message.headers[SIGNATURE] = header

    with pytest.raises(SecurityError, match="signature"):
        app.signing.check(TASK, message)


@pytest.mark.parametrize("part", ["key", "at", "nonce", "to", "names", "sig"])
@pytest.mark.parametrize("value", [None, 0, 1e400, "x", "0" * 32, [], ["", "q", "r"], ["", 5], {}], ids=repr)
def test_no_part_of_the_signature_can_be_another(app, part, value):
    message = signed_by_hand(app)
    claim = json.loads(message.headers[SIGNATURE])
    message.headers[SIGNATURE] = json.dumps({**claim, part: value})

    if claim[part] == value:
        assert app.signing.check(TASK, message)
    else:
        with pytest.raises(SecurityError):
            app.signing.check(TASK, message)


def test_a_signature_in_another_spelling_is_refused(app):
    message = signed_by_hand(app)
    claim = json.loads(message.headers[SIGNATURE])
    text = claim["sig"]
    assert text.endswith("==")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = last[last.index(text[-3]) ^ 1]
    message.headers[SIGNATURE] = json.dumps({**claim, "sig": f"{text[:-3]}{other}=="})

    with pytest.raises(SecurityError, match="does not fit"):
        app.signing.check(TASK, message)


def test_a_signature_cut_short_is_refused(app):
    message = signed_by_hand(app)
    claim = json.loads(message.headers[SIGNATURE])
    message.headers[SIGNATURE] = json.dumps({**claim, "sig": claim["sig"][:-8]})

    with pytest.raises(SecurityError, match="does not fit"):
        app.signing.check(TASK, message)


@pytest.mark.parametrize("name", ["mallory", "old"])
def test_a_stranger_and_an_expired_certificate_are_refused(app, directory, read, name):
    certificate = Certificate(read(f"{name}.pem"))
    signing = Signing(PrivateKey(read(f"{name}.key")), certificate, None, "sha256", app.conf)
    if name == "old":
        app.signing._cert_store = FSCertStore(str(directory / "store"))
        app.signing._cert_store.add_cert(certificate)

    with pytest.raises(SecurityError, match="Unknown certificate" if name == "mallory" else "Expired"):
        app.signing.check(TASK, signed_by_hand(app, signing=signing))


def test_a_message_grows_too_old(app, sent):
    message = sent()
    app.conf.security_replay_window = 100

    at(app, 99)
    assert app.signing.check(TASK, message).forget_at == pytest.approx(
        read_header(message.headers[SIGNATURE]).issued_at + 100
    )
    at(app, 102)
    with pytest.raises(SecurityError, match="security_replay_window"):
        app.signing.check(TASK, message)


def test_the_age_of_a_message_for_later_counts_from_then(app, sent):
    message = sent(countdown=1000)
    app.conf.security_replay_window = 100

    at(app, 1099)
    assert app.signing.check(TASK, message)
    at(app, 1102)
    with pytest.raises(SecurityError, match="old"):
        app.signing.check(TASK, message)


def test_a_message_from_the_future_is_refused(app, sent):
    message = sent()

    at(app, -CLOCK_SKEW_SECONDS + 10)
    assert app.signing.check(TASK, message)
    at(app, -CLOCK_SKEW_SECONDS - 10)
    with pytest.raises(SecurityError, match="in the future"):
        app.signing.check(TASK, message)


def test_a_command_is_for_now(app):
    message = signed_by_hand(app, COMMAND, "celery.pidbox", "")

    at(app, COMMAND_SECONDS - 1)
    assert app.signing.check(COMMAND, message)
    at(app, COMMAND_SECONDS + 2)
    with pytest.raises(SecurityError, match="old"):
        app.signing.check(COMMAND, message)


def test_celerys_own_messages_pass_only_where_the_setting_says_so(app):
    message = signed_by_hand(app)
    del message.headers[SIGNATURE]

    with pytest.raises(SecurityError, match="security_accept_upstream"):
        app.signing.check(TASK, message)
    app.conf.security_accept_upstream = True
    assert app.signing.check(TASK, message) is None


def test_a_signature_that_celery_carried_along_counts_as_none(app):
    message = signed_by_hand(app)
    message.headers["retries"] = 1

    with pytest.raises(SecurityError):
        app.signing.check(TASK, message)
    app.conf.security_accept_upstream = True
    assert app.signing.check(TASK, message) is None


def test_a_message_belongs_into_the_queue_that_it_was_sent_to(app):
    queues = app.amqp.Queues({})
    direct = queues.add("mine", exchange="things", routing_key="thing")
    topic = queues.add("some", exchange="news", exchange_type="topic", routing_key="#")

    check_queue(("", "mine"), "mine", direct)
    check_queue(("", "mine"), "mine", None)
    check_queue(("things", "thing"), "mine", direct)
    check_queue(("news", "of.today"), "some", topic)
    for to, name, queue in [
        (("", "mine"), "some", topic),
        (("", "mine"), "other", None),
        (("things", "other"), "mine", direct),
        (("news", "thing"), "mine", direct),
    ]:
        with pytest.raises(SecurityError, match="lay in queue"):
            check_queue(to, name, queue)
