"""Options of a call: wrong ones are refused when the task is sent, in words that help."""

from __future__ import annotations

import datetime as dt
import warnings
from decimal import Decimal

import pytest
from kombu.exceptions import EncodeError, SerializerNotInstalled

from celery import Celery
from celery.app import publishing
from celery.app.options import expires_at, starts_at, until
from celery.exceptions import CeleryWarning

UTC = dt.timezone.utc
NOW = dt.datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def app():
    app = Celery("options", broker="memory://", set_as_current=False)
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    yield app
    app.close()


@pytest.fixture
def add(app):
    @app.task(name="proj.add", shared=False)
    def add(x, y=0):
        return x + y

    return add


WRONG = {
    "countdown is text": ({"countdown": "5"}, TypeError, "`countdown` must be a number of seconds, not '5' (str)."),
    "countdown is nan": ({"countdown": float("nan")}, ValueError, "`countdown` must be a number of seconds, got nan."),
    "countdown is inf": ({"countdown": float("inf")}, ValueError, "`countdown` must be a number of seconds, got inf."),
    "countdown is past any calendar": ({"countdown": 1e12}, ValueError, "got 1e+12."),
    "countdown is a timedelta": ({"countdown": dt.timedelta(1)}, TypeError, "Use its total_seconds()."),
    "countdown is a Decimal": ({"countdown": Decimal("1.5")}, TypeError, "not Decimal('1.5')"),
    "eta is a word": ({"eta": "tomorrow"}, ValueError, "`eta` must be a datetime, or one as ISO 8601 text"),
    "eta is a number": ({"eta": 5}, TypeError, "For seconds from now use `countdown`."),
    "expires is a word": ({"expires": "soon"}, ValueError, "`expires` must be a datetime"),
    "expires is nan": ({"expires": float("nan")}, ValueError, "`expires` must be a number of seconds, got nan."),
    "expires is a timedelta": ({"expires": dt.timedelta(1)}, TypeError, "Use its total_seconds()."),
    "priority is a word": ({"priority": "high"}, TypeError, "`priority` must be a whole number, not 'high'."),
    "time limit is a word": ({"time_limit": "10s"}, TypeError, "`time_limit` must be a number of seconds, not '10s'"),
    "compression is unknown": ({"compression": "zippp"}, ValueError, "Unknown compression 'zippp'. Known: "),
    "serializer is unknown": ({"serializer": "jsn"}, SerializerNotInstalled, "No encoder installed for jsn. Known"),
}


@pytest.mark.parametrize(("options", "error", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_refused_with_a_way_out(add, options, error, text):
    with pytest.raises(error) as caught:
        add.apply_async((1, 2), **options)

    assert text in str(caught.value)


ACCEPTED = [
    {"countdown": -5},
    {"countdown": 0},
    {"countdown": 1.5},
    {"expires": -1},
    {"expires": 0},
    {"expires": "2030-01-01T00:00:00+00:00"},
    {"expires": dt.datetime(2030, 1, 1)},
    {"eta": "2030-01-01T00:00:00Z"},
    {"eta": dt.date(2030, 1, 1)},
    {"priority": 12},
    {"priority": "3"},
    {"time_limit": 3, "soft_time_limit": 1.5},
    {"foo": 1, "tag": "x"},
]


@pytest.mark.parametrize("options", ACCEPTED, ids=str)
def test_what_programs_rely_on_is_sent(add, options):
    assert add.apply_async((1, 2), **options).id


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("quue", "queue"),
        ("expire", "expires"),
        ("count_down", "countdown"),
        ("routingkey", "routing_key"),
        ("header", "headers"),
    ],
)
def test_a_misspelled_option_is_told_of_and_sent(add, name, meant):
    with pytest.warns(
        CeleryWarning, match=f"`{name}` is not an option of `apply_async`; did you mean `{meant}`?"
    ) as told:
        assert add.apply_async((1, 2), **{name: "x"}).id

    assert told[0].filename == __file__


def test_an_option_of_the_users_own_is_no_mistake(add):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add.apply_async((1, 2), tenant="t1", trace_id="z")
        add.apply_async((1, 2), stamped_headers=["quue"], quue=1)


def test_a_soft_limit_above_the_hard_one_is_told_of(add):
    with pytest.warns(CeleryWarning, match="the task is killed before the soft limit is reached"):
        add.apply_async((1, 2), time_limit=2, soft_time_limit=10)


class TestEncoding:
    def test_an_argument_that_cannot_be_sent_is_named(self, add):
        with pytest.raises(EncodeError) as caught:
            add.delay(1, {1, 2})

        assert str(caught.value).startswith(
            "proj.add() argument 2 (`y`): a value of type `set` cannot be sent as json."
        )
        assert "Object of type set is not JSON serializable" in str(caught.value)

    def test_the_innermost_value_is_named(self, add):
        with pytest.raises(EncodeError, match="argument `y`: a value of type `complex`"):
            add.delay(1, y={"a": [1, {"b": 2j}]})

    def test_an_argument_of_an_unknown_task_is_named_by_number(self, app):
        with pytest.raises(EncodeError, match=r"other\.task\(\) argument 1: a value of type `object`"):
            app.send_task("other.task", (object(),))

    def test_a_circle_is_described(self, add):
        circle = []
        circle.append(circle)

        with pytest.raises(EncodeError, match=r"contains itself: proj\.add → "):
            add.delay(circle)

    def test_a_signature_inside_of_itself_is_described(self, add):
        signature = add.s(1)
        signature.options["link"] = [signature]  # link() itself refuses

        with pytest.raises(EncodeError, match=r"contains itself: proj\.add → proj\.add"):
            add.apply_async((1,), link=signature)

    def test_the_same_value_twice_is_no_circle(self, add):
        shared = [1]

        assert add.delay(shared, shared).id


class TestArguments:
    @pytest.mark.parametrize("args", ["ab", {"a": 1}, 5])
    def test_arguments_must_be_a_list(self, app, args):
        with pytest.raises(TypeError, match="task args must be a list or tuple"):
            app.send_task("t", args)

    def test_keyword_arguments_must_be_a_mapping(self, app):
        with pytest.raises(TypeError, match="task keyword arguments must be a mapping"):
            app.send_task("t", (), [1])

    def test_a_call_is_checked_against_the_signature(self, add):
        for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"z": 3}), ((1,), {"x": 3})]:
            with pytest.raises(TypeError, match=r"add\(\) "):
                add.apply_async(args, kwargs)

    def test_the_check_can_be_switched_off(self, app):
        @app.task(typing=False, shared=False)
        def free(x):
            return x

        assert free.delay().id


class TestTimes:
    def test_a_countdown_goes_before_an_eta(self):
        assert starts_at(60, dt.datetime(2030, 1, 1), NOW, UTC) == "2026-11-20T12:01:00+00:00"

    def test_no_countdown_is_no_eta(self):
        assert starts_at(0, None, NOW, UTC) is None

    def test_expiry_counts_from_now(self):
        assert expires_at(60, NOW, UTC) == "2026-11-20T12:01:00+00:00"

    def test_the_broker_is_told_how_long_to_keep_a_message(self):
        assert until(None, NOW) is None
        assert until(1.5, NOW) == 1.5
        assert until(-3, NOW) == 0
        assert until(dt.datetime(2026, 11, 20, 12, 1, tzinfo=UTC), NOW) == 60
        assert until("2026-11-20T12:01:00", NOW) == 60
        assert until("2020-01-01T00:00:00", NOW) == 0


def test_similar_names_are_found_among_the_users_tasks(app, add):
    assert publishing.similar_tasks(app, "proj.ad") == ["proj.add"]
    assert publishing.similar_tasks(app, "proj.add") == []
    assert publishing.similar_tasks(app, "zzz") == []
