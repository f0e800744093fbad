"""PostgreSQL and MariaDB as brokers, through kombu's SQLAlchemy transport on the SQLAlchemy of today."""

from __future__ import annotations

import os
from uuid import uuid4

import kombu
import pytest

from celery.transports import Connection

sqlalchemy = pytest.importorskip("sqlalchemy")

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("TEST_MARIADB_URL", "mysql+pymysql://root@127.0.0.1:3306/test")


@pytest.fixture(
    params=[
        pytest.param(POSTGRES.replace("postgresql://", "postgresql+psycopg2://"), marks=pytest.mark.postgres),
        MARIADB,
    ],
    ids=["postgresql", "mariadb"],
)
def connection(request):
    url = request.param
    engine = sqlalchemy.create_engine(url)
    try:
        engine.connect().close()
    except (sqlalchemy.exc.OperationalError, ModuleNotFoundError) as error:
        pytest.skip(f"not reachable: {error}")
    finally:
        engine.dispose()
    connection = Connection(f"sqla+{url}")
    connection.transport.polling_interval = 0.05
    yield connection
    connection.release()


def test_messages_go_through(connection):
    name = f"q{uuid4().hex}"
    queue = kombu.Queue(name, kombu.Exchange(name), routing_key=name)
    producer = connection.Producer()
    for number in range(3):
        producer.publish({"n": number}, exchange=queue.exchange, routing_key=name, declare=[queue], serializer="json")
    got = []

    def take(body, message):
        got.append(body["n"])
        message.ack()

    with connection.Consumer([queue], callbacks=[take], accept=["json"]):
        while len(got) < 3:
            connection.drain_events(timeout=10)
    assert got == [0, 1, 2]
    assert queue(connection.default_channel).queue_declare(passive=True).message_count == 0
