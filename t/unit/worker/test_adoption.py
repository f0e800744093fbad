from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from celery.worker.consumer.adoption import MOST_ENDED, REMEMBERED_SECONDS, Adoption, key_of

logger = logging.getLogger(__name__)


class Message:
    """A delivery that writes down how it was answered."""

    def __init__(self, task_id="id-1", redelivered=True, **headers):
        self.headers = {"id": task_id, "task": "t", "retries": 0, **headers}
        self.delivery_info = {"redelivered": redelivered}
        self.answers = []

    def ack_log_error(self, logger, errors):
        self.answers.append("ack")

    def reject_log_error(self, logger, errors, requeue=False):
        self.answers.append("requeue" if requeue else "reject")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def adoption(clock):
    return Adoption(clock)


def request_for(message, acknowledged=False):
    return SimpleNamespace(message=message, acknowledged=acknowledged, on_ack=None, on_reject=None)


def acknowledge(message):
    message.ack_log_error(logger, ())


def test_nothing_is_adopted_while_no_connection_was_lost(adoption):
    adoption.note_acknowledged({"id": "id-1"})

    assert not adoption


def test_a_redelivery_of_a_running_task_is_acknowledged_when_that_ends(adoption):
    request = request_for(Message())
    adoption.on_connection_lost([request])
    again = Message()

    assert adoption.take(again, acknowledge)
    assert again.answers == []

    request.on_ack(logger, ())
    assert again.answers == ["ack"]


def test_a_redelivery_after_the_end_is_acknowledged_at_once(adoption):
    request = request_for(Message())
    adoption.on_connection_lost([request])
    request.on_ack(logger, ())
    again = Message()

    assert adoption.take(again, acknowledge)
    assert again.answers == ["ack"]


def test_the_lost_delivery_itself_is_not_answered_any_more(adoption):
    message = Message()
    request = request_for(message)
    adoption.on_connection_lost([request])
    request.on_ack(logger, ())

    assert message.answers == []


def test_a_task_whose_acknowledgement_was_lost_is_not_run_again(adoption):
    adoption.note_acknowledged(Message().headers)
    adoption.on_connection_lost([])
    again = Message()

    assert adoption.take(again, acknowledge)
    assert again.answers == ["ack"]


def test_each_delivery_is_adopted_once(adoption):
    adoption.note_acknowledged(Message().headers)
    adoption.on_connection_lost([])

    assert adoption.take(Message(), acknowledge)
    assert not adoption.take(Message(), acknowledge)


def test_two_deliveries_of_one_id_are_both_adopted(adoption):
    adoption.note_acknowledged(Message().headers)
    adoption.note_acknowledged(Message().headers)
    adoption.on_connection_lost([])

    assert adoption.take(Message(), acknowledge)
    assert adoption.take(Message(), acknowledge)
    assert not adoption


def test_a_retry_of_the_task_is_run(adoption):
    adoption.note_acknowledged(Message().headers)
    adoption.on_connection_lost([])

    assert not adoption.take(Message(retries=1), acknowledge)


def test_a_replacement_of_the_task_is_run(adoption):
    adoption.note_acknowledged(Message().headers)
    adoption.on_connection_lost([])

    assert not adoption.take(Message(replaced_task_nesting=1), acknowledge)


def test_a_request_that_wants_to_run_again_leaves_that_to_its_redelivery(adoption):
    request = request_for(Message())
    adoption.on_connection_lost([request])
    request.on_reject(logger, (), True)

    assert not adoption.take(Message(), acknowledge)


def test_a_reject_goes_to_the_redelivery(adoption):
    request = request_for(Message())
    adoption.on_connection_lost([request])
    again = Message()
    adoption.take(again, acknowledge)
    request.on_reject(logger, (), False)

    assert again.answers == ["reject"]


def test_an_acknowledged_request_needs_no_redelivery(adoption):
    request = request_for(Message(), acknowledged=True)
    adoption.on_connection_lost([request])

    assert request.on_ack is None
    assert not adoption


def test_a_second_loss_keeps_what_the_first_one_left(adoption):
    request = request_for(Message())
    adoption.on_connection_lost([request])
    adoption.take(Message(), acknowledge)
    adoption.on_connection_lost([request])
    third = Message()

    assert adoption.take(third, acknowledge)
    request.on_ack(logger, ())
    assert third.answers == ["ack"]


def test_an_acknowledgement_through_the_redelivery_may_be_lost_as_well(adoption):
    request = request_for(Message())
    adoption.on_connection_lost([request])
    adoption.take(Message(), acknowledge)
    request.on_ack(logger, ())
    adoption.on_connection_lost([])

    assert adoption.take(Message(), acknowledge)


def test_after_a_while_nothing_is_adopted(adoption, clock):
    adoption.note_acknowledged(Message().headers)
    adoption.on_connection_lost([])
    clock.now += REMEMBERED_SECONDS + 1

    assert not adoption.take(Message(), acknowledge)
    assert not adoption


def test_version_1_hides_its_identity():
    assert key_of({}) is None
    assert key_of({"id": 5}) is None


def test_many_lost_connections_leave_a_bounded_memory_of_the_latest(adoption):
    for number in range(2 * MOST_ENDED):
        adoption.note_acknowledged(Message(f"id-{number}").headers)
        if number % 500 == 499:
            adoption.on_connection_lost([])

    assert len(adoption._ended) == MOST_ENDED
    assert adoption.take(Message(f"id-{2 * MOST_ENDED - 1}"), acknowledge)
    assert not adoption.take(Message("id-0"), acknowledge)
