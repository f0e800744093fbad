"""Fixtures for the tests of the Redis broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one

pytest.importorskip("redis")

from kombu.asynchronous import set_event_loop
from redis_kit import Loop, Server, new_server

from celery.transports import Connection
from celery.transports.redis import lease as lease_registry


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = new_server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The server, empty."""
    shared_server.client().flushall()
    return shared_server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may hurt."""
    server = new_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


@pytest.fixture
def connect(server: Server) -> Iterator[Any]:
    """Makes connections of ours; keywords are transport options."""
    opened = []

    def make(db: int = 0, url: str | None = None, **options: Any) -> Connection:
        connection = Connection(url or server.url(db), transport_options=options)
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        connection.release()


@pytest.fixture(autouse=True)
def own_leases() -> Iterator[None]:
    """Hold nothing when a test begins, as a new process does, and have no thread renew what an earlier one held."""
    yield
    for lease in lease_registry.all_leases():
        lease.is_closing = True
        if lease.keeper is not None:
            lease.keeper.wake.set()
            lease.keeper.join(10)
    lease_registry._leases.clear()


@pytest.fixture
def peer(server: Server) -> Iterator[kombu.Connection]:
    """A connection over kombu's own transport, as Celery makes it."""
    with kombu.Connection(server.url()) as connection:
        yield connection


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.hub.close()
    set_event_loop(None)
