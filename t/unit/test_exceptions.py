import pickle
import subprocess
import sys
from datetime import datetime

import pytest

from celery import exceptions
from celery.exceptions import (
    BackendGetMetaError,
    BackendStoreError,
    MaxRetriesExceededError,
    NotRegistered,
    Reject,
    Retry,
    reraise,
)


@pytest.mark.parametrize(
    ("retry", "text"),
    [
        (Retry("busy"), "busy"),
        (Retry(when=3), "Retry in 3s"),
        (Retry(exc=ValueError("x"), when=2.5), "Retry in 2.5s: ValueError('x')"),
        (Retry(exc="as text", when=datetime(2020, 1, 1)), "Retry at 2020-01-01 00:00:00: as text"),
    ],
)
def test_a_retry_says_when_and_why(retry, text):
    assert str(retry) == text
    assert str(pickle.loads(pickle.dumps(retry))) == text


def test_a_retry_keeps_its_facts_through_a_pickle():
    error = ValueError("x")
    copy = pickle.loads(pickle.dumps(Retry("m", error, 10)))

    assert (copy.message, repr(copy.exc), copy.when, copy.excs) == ("m", repr(error), 10, "ValueError('x')")


def test_a_retry_survives_an_error_that_cannot_show_itself():
    class Mute(Exception):
        def __repr__(self):
            raise RuntimeError

    assert "Mute" in Retry(exc=Mute()).excs


def test_reject_keeps_reason_and_requeue():
    copy = pickle.loads(pickle.dumps(Reject("bad", requeue=True)))

    assert (copy.reason, copy.requeue, repr(copy)) == ("bad", True, "reject requeue=True: bad")


def test_errors_carry_their_facts():
    assert BackendGetMetaError("m", task_id="i").task_id == "i"
    error = pickle.loads(pickle.dumps(BackendStoreError("m", state="SUCCESS", task_id="i")))
    assert (error.state, error.task_id, str(error)) == ("SUCCESS", "i", "m")
    assert repr(error) == "BackendStoreError('m') state:SUCCESS task_id:i"
    gone = MaxRetriesExceededError("m", task_args=(1,), task_kwargs={"a": 2})
    assert (gone.task_args, gone.task_kwargs, gone.args) == ((1,), {"a": 2}, ("m",))


def test_an_unregistered_task_is_told_by_name():
    assert "'proj.add'" in repr(NotRegistered("proj.add"))
    assert isinstance(NotRegistered("x"), KeyError)


def test_a_command_error_carries_its_exit_status():
    error = exceptions.CeleryCommandException("no", 3)

    assert (error.exit_code, error.message) == (3, "no")
    assert type(error).__module__ == "celery.exceptions"


def test_errors_of_other_packages_are_the_same_classes():
    from billiard.exceptions import SoftTimeLimitExceeded
    from kombu.exceptions import OperationalError

    assert exceptions.SoftTimeLimitExceeded is SoftTimeLimitExceeded
    assert exceptions.OperationalError is OperationalError
    assert all(hasattr(exceptions, name) for name in exceptions.__all__)
    with pytest.raises(AttributeError, match="nope"):
        exceptions.nope


def test_importing_exceptions_imports_no_other_package():
    code = "import sys, celery.exceptions as e; print([m for m in ('kombu', 'billiard', 'click') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_reraise_gives_the_error_another_traceback():
    try:
        raise KeyError("there")
    except KeyError as error:
        traceback = error.__traceback__
    with pytest.raises(ValueError, match="here") as caught:
        reraise(ValueError, ValueError("here"), traceback)
    assert caught.value.__traceback__.tb_next.tb_next is traceback or traceback in _chain(caught.value.__traceback__)


def _chain(traceback):
    while traceback:
        yield traceback
        traceback = traceback.tb_next
