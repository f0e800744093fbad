import json
import pickle
from datetime import date, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.serialization import (
    UnpickleableExceptionWrapper,
    b64decode,
    b64encode,
    create_exception_cls,
    ensure_serializable,
    find_pickleable_exception,
    get_pickleable_etype,
    get_pickleable_exception,
    get_pickled_exception,
    itermro,
    jsonify,
    raise_with_context,
    strtobool,
    subclass_exception,
)


class NeedsTwo(Exception):
    """Cannot be rebuilt from its args."""

    def __init__(self, one, two):
        self.two = two
        super().__init__(one)


class Stubborn(Exception):
    def __reduce__(self):
        raise TypeError("no")


class WithLambda(ValueError):
    def __init__(self, number):
        super().__init__("text", number, lambda: None)


def local_error():
    class Local(KeyError):
        pass

    return Local("key")


def test_what_can_be_pickled_travels_as_it_is():
    error = ValueError(1)
    assert get_pickleable_exception(error) is error
    assert get_pickled_exception(error) is error
    assert find_pickleable_exception(error).args == (1,)


def test_the_nearest_base_stands_for_a_class_that_nobody_can_import():
    found = get_pickleable_exception(local_error())
    assert type(found) is KeyError
    assert found.args == ("key",)


@pytest.mark.parametrize(
    ("error", "args", "text"),
    [
        (NeedsTwo(1, 2), (1,), "NeedsTwo(1)"),
        (Stubborn("x"), ("x",), "Stubborn('x')"),
    ],
)
def test_others_are_wrapped_and_restored_by_name(error, args, text):
    wrapped = pickle.loads(pickle.dumps(get_pickleable_exception(error)))

    assert isinstance(wrapped, UnpickleableExceptionWrapper)
    assert (wrapped.exc_module, wrapped.exc_cls_name, wrapped.exc_args) == (__name__, type(error).__name__, args)
    assert str(wrapped) == text
    restored = get_pickled_exception(wrapped)
    assert (type(restored).__name__, type(restored).__module__, restored.args) == (type(error).__name__, __name__, args)


def test_arguments_that_cannot_travel_are_shown():
    wrapped = get_pickleable_exception(WithLambda(3))
    assert wrapped.exc_args[:2] == ("text", 3)
    assert "lambda" in wrapped.exc_args[2]
    assert str(UnpickleableExceptionWrapper("m", "C", (1, "a"))) == "C(1, 'a')"


def test_types_that_cannot_travel_are_replaced_by_a_base():
    assert get_pickleable_etype(ValueError) is ValueError
    assert get_pickleable_etype(type(local_error())) is KeyError
    assert get_pickleable_etype(create_exception_cls("Foo", "nowhere")) is Exception


def test_exception_classes_are_made_by_name():
    made = create_exception_cls("Foo", "some.module", KeyError)
    assert (made.__name__, made.__module__, made.__mro__[1]) == ("Foo", "some.module", KeyError)
    assert subclass_exception("Bar", ValueError, "m").__bases__ == (ValueError,)
    assert list(itermro(WithLambda, {Exception})) == [WithLambda, ValueError]


def test_items_that_the_encoder_refuses_are_shown():
    assert ensure_serializable((1, {2}), json.dumps) == (1, "{2}")


@given(st.binary())
def test_base64_goes_there_and_back(data):
    assert b64decode(b64encode(data)) == data
    assert b64encode("text") == b64encode(b"text")


@pytest.mark.parametrize(
    ("term", "value"), [("yes", True), ("OFF", False), ("1", True), ("0", False), (True, True), (None, None), (3, 3)]
)
def test_words_are_booleans(term, value):
    assert strtobool(term) is value


def test_unknown_words_are_no_booleans():
    with pytest.raises(TypeError, match="'maybe'"):
        strtobool("maybe")
    assert strtobool("ja", {"ja": True})


def test_values_are_made_fit_for_json():
    utc = datetime(2026, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    value = {"a": utc, "b": (1, 2.5, None), "c": {"d": timedelta(1)}, "e": date(2026, 1, 1), "f": time(1, 2)}
    assert jsonify(value) == {
        "a": "2026-05-06T07:08:09Z",
        "b": [1, 2.5, None],
        "c": {"d": "1 day, 0:00:00"},
        "e": "2026-01-01",
        "f": "01:02:00",
    }
    assert jsonify({"a": 1, "b": 2}, keyfilter=lambda key: key == "a") == {"a": 1}
    assert jsonify([{1}], unknown_type_filter=len) == [1]
    with pytest.raises(ValueError, match=r"Unsupported type: <class 'set'> \{1\} \(parent: a\)"):
        jsonify({"a": {1}})


def test_an_error_is_raised_with_the_one_being_handled():
    with pytest.raises(ValueError, match="new") as caught:
        try:
            raise KeyError("old")
        except KeyError:
            raise_with_context(ValueError("new"))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ValueError, match="alone") as caught:
        raise_with_context(ValueError("alone"))
    assert caught.value.__cause__ is None
    with pytest.raises(KeyError) as caught:
        try:
            raise KeyError("same")
        except KeyError as error:
            raise_with_context(error)
    assert caught.value.__cause__ is None
