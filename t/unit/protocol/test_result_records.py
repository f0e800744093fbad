"""Records of results: exceptions in and out, and nothing a record names is imported or called."""

from __future__ import annotations

import json
import os
import sys
import types

import pytest

from celery.exceptions import ChordError, SecurityError
from celery.protocol.result import (
    exception_from_record,
    exception_record,
    make_meta,
    pending_meta,
    revive,
    split_compressed,
    wrap_compressed,
)


class Custom(Exception):
    class Inner(Exception):
        pass


class Picky(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def record(name, message, module):
    return {"exc_type": name, "exc_message": message, "exc_module": module}


def test_an_exception_comes_back_as_its_own_class():
    back = exception_from_record(exception_record(ChordError("a", 1), json.dumps))

    assert type(back) is ChordError
    assert back.args == ("a", 1)


def test_a_nested_class_is_found_by_its_qualified_name():
    assert exception_record(Custom.Inner("x"), json.dumps)["exc_type"] == "Custom.Inner"
    found = exception_from_record(record("Custom.Inner", ["x"], __name__))

    assert type(found).__qualname__ in ("Custom.Inner", "Inner")


def test_arguments_that_cannot_be_encoded_become_text():
    assert list(exception_record(KeyError("x", {1}), json.dumps)["exc_message"]) == ["x", "{1}"]


@pytest.mark.parametrize(
    ("message", "args"), [(["a", 1], ("a", 1)), ("a", ("a",)), ({"k": 1}, ({"k": 1},)), (None, (None,)), (3, (3,))]
)
def test_messages_of_all_kinds_become_arguments(message, args):
    assert exception_from_record(record("KeyError", message, "builtins")).args == args


def test_an_unknown_class_is_made_up():
    found = exception_from_record(record("Nope", ["boom"], "no.such.module"))

    assert (type(found).__name__, type(found).__module__, found.args) == ("Nope", "celery.exceptions", ("boom",))
    assert isinstance(found, Exception)


def test_a_record_without_module_is_made_up_too():
    assert type(exception_from_record({"exc_type": "KeyError", "exc_message": ["x"]})) is not KeyError


def test_a_module_that_is_not_imported_stays_so():
    sys.modules.pop("wave", None)
    found = exception_from_record(record("Error", ["x"], "wave"))

    assert "wave" not in sys.modules
    assert type(found).__module__ == "celery.exceptions"


def test_the_lazy_names_of_a_module_are_not_touched(monkeypatch):
    module = types.ModuleType("lazy_module_of_test")
    module.__getattr__ = lambda name: pytest.fail(f"looked for {name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    assert type(exception_from_record(record("Secret", [], module.__name__))).__name__ == "Secret"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "dict"),
        ("builtins", "eval"),
        ("subprocess", "Popen"),
        ("sys", "modules"),
        ("os", "path"),
    ],
)
def test_what_is_no_exception_is_never_called(module, name, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("called"))
    with pytest.raises(SecurityError, match="no exception class"):
        exception_from_record(record(name, ["echo hi"], module))


def test_a_class_that_refuses_the_arguments_is_described():
    sys.modules[__name__] = sys.modules.get(__name__) or types.SimpleNamespace(Picky=Picky)
    found = exception_from_record(record("UnicodeDecodeError", ["boom"], "builtins"))

    assert type(found) is Exception
    assert "UnicodeDecodeError" in str(found)
    assert "boom" in str(found)


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_record_is_no_exception(nothing):
    assert exception_from_record(nothing) is None


def test_an_exception_passes_through():
    error = KeyError("x")

    assert exception_from_record(error) is error


@pytest.mark.parametrize("bad", [5, [1], "text"])
def test_other_things_are_refused(bad):
    with pytest.raises(TypeError):
        exception_from_record(bad)


@pytest.mark.parametrize("name", [None, "", 5, ["x"]])
def test_a_record_needs_the_name_of_a_class(name):
    with pytest.raises(ValueError, match="exc_type"):
        exception_from_record(record(name, ["x"], "builtins"))


@pytest.mark.parametrize("written", ["just text", 5, ["a"], {"exc_message": ["no type"]}])
def test_what_other_clients_write_for_a_failure_is_no_obstacle(written):
    meta = revive({"status": "FAILURE", "result": written})

    assert type(meta["result"]) is Exception
    assert meta["result"].args == (written,)


def test_only_failures_are_revived():
    assert (
        revive({"status": "SUCCESS", "result": record("KeyError", ["x"], "builtins")})["result"]["exc_type"]
        == "KeyError"
    )


def test_of_nothing_it_is_said_that_it_is_pending():
    assert pending_meta() == {"status": "PENDING", "result": None}


def test_a_stamp_cannot_take_the_place_of_a_field():
    request = types.SimpleNamespace(
        stamps={"status": "x", "mine": 1}, stamped_headers=["status", "mine"], delivery_info=None
    )
    meta = make_meta("id", 1, "SUCCESS", request=request, extended=True)

    assert (meta["status"], meta["mine"]) == ("SUCCESS", 1)


def test_a_compressed_payload_says_how_it_was_compressed():
    payload = wrap_compressed(b"\x1f\x8b\x00data", "application/x-gzip")

    assert payload == b"\x00celery-compressed\x00application/x-gzip\x00\x1f\x8b\x00data"
    assert split_compressed(payload) == (b"\x1f\x8b\x00data", "application/x-gzip")


@pytest.mark.parametrize("plain", ['{"a": 1}', b'{"a": 1}', b"", b"\x00other"])
def test_a_plain_payload_is_not_taken_for_compressed(plain):
    assert split_compressed(plain) is None


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_a_record_cannot_end_who_reads_it(name):
    error = exception_from_record({"exc_type": name, "exc_module": "builtins", "exc_message": ["x"]})

    assert isinstance(error, Exception)
    assert type(error).__name__ == name
    assert error.args == ("x",)
    shutdown = {"exc_type": "WorkerShutdown", "exc_module": "celery.exceptions", "exc_message": [0]}
    assert isinstance(exception_from_record(shutdown), Exception)
