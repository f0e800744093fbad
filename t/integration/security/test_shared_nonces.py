"""Nonces in a real Redis, as two workers see them."""

from __future__ import annotations

import os
import time
import uuid

import pytest
import redis

from celery.security.nonces import SharedNonces, Standing

URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
NEW, HELD, SPENT = Standing.NEW, Standing.HELD, Standing.SPENT

pytestmark = pytest.mark.redis


@pytest.fixture
def client():
    with redis.Redis.from_url(f"{URL}/12") as client:
        yield client


@pytest.fixture
def workers(client):
    prefix = uuid.uuid4().hex
    yield [SharedNonces(lambda: client, prefix), SharedNonces(lambda: client, prefix)]
    for key in client.scan_iter(f"{prefix}*"):
        client.delete(key)


@pytest.fixture
def soon():
    return time.time() + 60


def test_what_one_worker_took_the_other_knows(workers, soon):
    first, second = workers

    assert first.take("n", soon) is NEW
    assert second.take("n", soon) is HELD
    assert first.take("n", soon) is HELD
    first.spend("n")
    assert second.take("n", soon) is SPENT
    assert second.take("n", soon, is_redelivered=True) is SPENT


def test_a_redelivery_goes_over_to_who_gets_it(workers, soon):
    first, second = workers
    first.take("n", soon)

    assert second.take("n", soon, is_redelivered=True) is HELD
    first.give_back("n")  # too late: it is not the first one's any more
    assert first.take("n", soon) is HELD
    second.spend("n")
    assert first.take("n", soon) is SPENT


def test_what_is_given_back_is_free_for_all(workers, soon):
    first, second = workers
    first.take("n", soon)
    first.give_back("n")

    assert second.take("n", soon) is NEW


def test_a_copy_that_was_refused_changes_nothing(workers, soon):
    first, second = workers
    first.take("n", soon)
    second.take("n", soon)
    second.spend("n")
    second.give_back("n")

    assert second.take("n", soon) is HELD


def test_a_worker_remembers_even_if_the_store_forgets(workers, client, soon):
    first, _ = workers
    first.take("n", soon)
    first.spend("n")
    client.delete(f"{first._prefix}n")

    assert first.take("n", soon) is SPENT


def test_nonces_go_when_their_messages_are_too_old(workers, client):
    first, _ = workers
    first.take("n", time.time() + 60)
    first.spend("n")

    assert 50_000 < client.pttl(f"{first._prefix}n") <= 60_000


def test_what_could_not_be_given_back_is_given_back_later(workers, client, soon):
    first, second = workers
    first.take("n", soon)
    first._client = redis.Redis(port=1)
    with pytest.raises(ConnectionError):
        first.give_back("n")
    with pytest.raises(ConnectionError):
        first.take("other", soon)
    first._client = client
    assert first.take("another", soon) is NEW

    assert second.take("n", soon) is NEW
