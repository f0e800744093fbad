"""abstract, annotations, deprecated, iso8601, quorum_queues, term."""

import base64
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning
from celery.utils import deprecated
from celery.utils.abstract import CallableSignature, CallableTask
from celery.utils.annotations import annotation_is_class, annotation_issubclass, get_optional_arg, is_none_type
from celery.utils.iso8601 import parse_iso8601
from celery.utils.quorum_queues import detect_quorum_queues
from celery.utils.term import colored, imgcat, supports_images


class LikeATask:
    def __call__(self):
        pass

    delay = apply_async = apply = __call__


class LikeASignature(LikeATask):
    clone = freeze = set = link = link_error = __or__ = LikeATask.__call__


def test_what_has_a_task_s_methods_is_a_task():
    assert isinstance(LikeATask(), CallableTask)
    assert not isinstance(LikeATask(), CallableSignature)
    assert isinstance(LikeASignature(), CallableSignature)
    assert not isinstance(object(), CallableTask)


def test_classes_can_be_registered_as_signatures():
    @CallableSignature.register
    class Registered(dict):
        pass

    assert isinstance(Registered(), CallableSignature)
    assert not isinstance({}, CallableSignature)


@pytest.mark.parametrize(
    ("annotation", "argument"),
    [
        (Optional[int], int),  # noqa: UP045
        (int | None, int),
        (None | str, str),
        (Union[int, str], None),  # noqa: UP007
        (int, None),
        (list[int], None),
    ],
)
def test_optional_annotations_are_opened(annotation, argument):
    assert get_optional_arg(annotation) is argument


def test_annotations_may_be_classes():
    assert annotation_is_class(int)
    assert not annotation_is_class(list[int])
    assert not annotation_is_class("int")
    assert annotation_issubclass(bool, int)
    assert not annotation_issubclass(list[int], list)
    assert is_none_type(type(None))
    assert not is_none_type(None)


def test_deprecations_say_when_and_what_instead():
    with pytest.warns(CPendingDeprecationWarning, match=r"old is scheduled for deprecation in version 6 .* Use new"):
        deprecated.warn("old", deprecation="6", removal="7", alternative="new")
    with pytest.warns(CDeprecationWarning, match="old is deprecated and scheduled for removal in version 7") as caught:
        deprecated.warn("old", removal="7")
    assert caught[0].filename == __file__


def test_deprecated_functions_warn_and_work():
    @deprecated.Callable(removal="7", alternative="add")
    def plus(x, y):
        """Adds."""
        return x + y

    with pytest.warns(CDeprecationWarning, match="plus") as caught:
        assert plus(1, 2) == 3
    assert caught[0].filename == __file__
    assert plus.__doc__ == "Adds."


def test_deprecated_properties_warn_and_work():
    class Thing:
        value = 1

        @deprecated.Property(removal="7")
        def old(self):
            return self.value

        @old.setter
        def old(self, value):
            self.value = value

        @old.deleter
        def old(self):
            del self.value

    thing = Thing()
    with pytest.warns(CDeprecationWarning) as caught:
        assert thing.old == 1
    assert caught[0].filename == __file__
    with pytest.warns(CDeprecationWarning):
        thing.old = 2
    assert thing.value == 2
    with pytest.warns(CDeprecationWarning):
        del thing.old
    assert thing.value == 1
    assert Thing.old.__name__ == "old"


def test_deprecated_properties_are_read_only_unless_set_up():
    class Thing:
        @deprecated.Property(removal="7")
        def old(self):
            return 1

    for change in (lambda: setattr(Thing(), "old", 1), lambda: delattr(Thing(), "old")):
        with pytest.raises(AttributeError, match="old"):
            change()


@pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
        ("2026-01-02T03:04:05.5Z", datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=timezone.utc)),
        ("2026-01-02T03:04-05:30", datetime(2026, 1, 2, 3, 4, tzinfo=timezone(-timedelta(hours=5, minutes=30)))),
        ("2026-01", datetime(2026, 1, 1)),
    ],
)
def test_dates_are_read(text, expected):
    assert parse_iso8601(text) == expected
    assert parse_iso8601(text).utcoffset() == expected.utcoffset()
    with pytest.raises(ValueError, match="unable to parse"):
        parse_iso8601("soon")


@pytest.mark.parametrize(
    ("arguments", "driver", "found"),
    [
        ({"x-queue-type": "quorum"}, "amqp", (True, "q")),
        ({"x-queue-type": "classic"}, "amqp", (False, "")),
        (None, "amqp", (False, "")),
        ({"x-queue-type": "quorum"}, "redis", (False, "")),
    ],
)
def test_quorum_queues_are_told_from_others(arguments, driver, found):
    app = SimpleNamespace(amqp=SimpleNamespace(queues={"q": SimpleNamespace(queue_arguments=arguments)}))
    assert detect_quorum_queues(app, driver) == found


COLORS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"]


def test_text_has_colours():
    assert str(colored().red("bad")) == "\033[1;31mbad\033[0m"
    assert str(colored().bold("a", colored().blue("b"))) == "\033[1ma\033[1;34mb\033[0m\033[0m"
    assert str(colored().bold(colored().blue("a"), "b")) == "\033[1m\033[1;34ma\033[0mb\033[0m"
    assert colored().red("a") + "b" == "\033[1;31ma\033[0mb"
    for number, name in enumerate(COLORS):
        assert f"\033[1;{30 + number}m" in str(getattr(colored(), name)("x"))
        assert colored().names[name]
    for number, name in list(enumerate(COLORS))[1:]:
        assert f"\033[1;{40 + number}m" in str(getattr(colored(), "i" + name)("x"))
    for code, name in ((1, "bright"), (4, "underline"), (5, "blink"), (7, "reverse")):
        assert f"\033[{code}m" in str(getattr(colored(), name)("x"))
    assert str(colored().reset()) == "\033[0m\033[0m"


@given(st.lists(st.text(), min_size=1), st.sampled_from(COLORS))
def test_the_text_is_there_without_colours(parts, color):
    assert getattr(colored(), color)(*parts).no_color() == "".join(parts)
    assert str(getattr(colored(enabled=False), color)(*parts)) == "".join(parts)


def test_pictures_are_sent_as_text(tmp_path, monkeypatch):
    (tmp_path / "picture").write_bytes(b"PNG")
    monkeypatch.setenv("TERM", "xterm")
    shown = imgcat(str(tmp_path / "picture"), inline=1)
    assert base64.b64encode(b"PNG").decode() in shown
    assert "inline=1;preserveAspectRatio=0" in shown
    monkeypatch.setenv("TERM", "screen-256color")
    assert "\033Ptmux" in imgcat(str(tmp_path / "picture"))
    monkeypatch.delenv("ITERM_PROFILE", raising=False)
    assert supports_images() is False
