from __future__ import annotations

import logging

import pytest

from celery.security.nonces import MemoryNonces, Standing

NEW, HELD, SPENT = Standing.NEW, Standing.HELD, Standing.SPENT


@pytest.fixture
def nonces():
    return MemoryNonces()


def test_a_copy_is_noticed_while_its_message_is_held(nonces):
    assert nonces.take("a", 100) is NEW
    assert nonces.take("b", 100) is NEW
    assert nonces.take("a", 100) is HELD


def test_a_copy_is_noticed_when_its_message_is_done(nonces):
    nonces.take("a", 100)
    nonces.spend("a")

    assert nonces.take("a", 100) is SPENT
    assert nonces.take("a", 100, is_redelivered=True) is SPENT


def test_what_the_broker_has_again_may_come_again(nonces):
    nonces.take("a", 100)
    nonces.give_back("a")

    assert nonces.take("a", 100) is NEW


def test_what_is_spent_cannot_be_given_back(nonces):
    nonces.take("a", 100)
    nonces.spend("a")
    nonces.give_back("a")

    assert nonces.take("a", 100) is SPENT


def test_memory_is_bounded_and_what_is_too_old_anyway_goes_first(caplog):
    now = 50.0
    nonces = MemoryNonces(most=10, clock=lambda: now)
    for number in range(10):
        nonces.take(f"old{number}", 40)
        nonces.spend(f"old{number}")
    nonces.take("new", 100)
    nonces.spend("new")
    assert nonces.take("new", 100) is SPENT
    assert nonces.take("old1", 40) is NEW
    assert not caplog.records

    with caplog.at_level(logging.WARNING, "celery.security"):
        for number in range(30):
            nonces.take(f"n{number}", 200 + number)
            nonces.spend(f"n{number}")
    assert len(nonces._spent) <= 10
    assert nonces.take("n29", 229) is SPENT
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "security_nonce_store" in caplog.text
