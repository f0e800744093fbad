"""Sockets whose other side may vanish without a word."""

from __future__ import annotations

import socket
from typing import Any

__all__ = ("watch_over",)

#: Seconds until the kernel gives up on data that the other side does not confirm.
UNCONFIRMED_SECONDS = 20
#: Seconds of silence before the kernel asks whether the other side is still there.
KEEPALIVE_SECONDS = 15


def watch_over(sock: Any, has_own_keepalive: bool) -> None:
    """Make the kernel notice a peer that vanished; ``has_own_keepalive``: what the user set for that stays."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    if not has_own_keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", KEEPALIVE_SECONDS), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNCONFIRMED_SECONDS * 1000)
