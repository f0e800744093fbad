"""Closing cannot hang on a dead broker: the sockets of real connections get a timeout."""

import pytest
from kombu import Connection

from celery.utils.threads import bound_open_broker_sockets


@pytest.mark.rabbitmq
def test_the_socket_to_rabbitmq_gets_a_timeout():
    with Connection("amqp://guest:guest@127.0.0.1:5672//") as connection:
        connection.default_channel
        bound_open_broker_sockets(connection, 2.5)
        assert connection.connection.transport.sock.gettimeout() == 2.5


@pytest.mark.redis
def test_the_sockets_to_redis_get_a_timeout():
    with Connection("redis://127.0.0.1:6379/15") as connection:
        client = connection.default_channel.client
        client.ping()
        bound_open_broker_sockets(connection, 2.5)
        pooled = client.connection_pool._available_connections
        assert [one._sock.gettimeout() for one in pooled] == [2.5]
