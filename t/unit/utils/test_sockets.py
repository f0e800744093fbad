import socket

import pytest

from celery.utils.sockets import KEEPALIVE_SECONDS, UNCONFIRMED_SECONDS, watch_over


@pytest.fixture
def tcp():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        yield sock


def test_a_peer_that_vanished_is_noticed(tcp):
    watch_over(tcp, has_own_keepalive=False)

    assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_SECONDS
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNCONFIRMED_SECONDS * 1000


def test_what_the_user_set_for_keepalive_stays(tcp):
    watch_over(tcp, has_own_keepalive=True)

    assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_a_unix_socket_is_left_alone():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch_over(ours, has_own_keepalive=False)

        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
