"""A TCP proxy that misbehaves on command: between an actor and its broker.

Modes: ``pass``; ``stall`` (reads nothing, so that the sender's buffers fill); ``drop`` (reads and discards what goes to the
server: its acknowledgements are lost); ``mute`` (discards what comes from the server); ``delay`` (a few ms each way);
``cut`` (ends in the middle of what is passed on next); ``refuse`` (closes at once).  A mode is that of the connections that are open when
it is set, and of those that are opened while it lasts; ``pass`` is for new ones only: who was stalled or dropped stays so, as
behind a router that has forgotten them.  `heal` lets those go on, too.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time

MODES = ("stall", "drop", "mute", "delay", "cut", "reset")
RESET = struct.pack("ii", 1, 0)


class _Pair:
    """One proxied connection."""

    def __init__(self, client: socket.socket, server: socket.socket, mode: str) -> None:
        self.client, self.server, self.mode = client, server, mode

    def close(self, reset: bool = False) -> None:
        for end in (self.client, self.server):
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.close()


class Proxy:
    """Listens on a free port and passes on to ``port``, both on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.mode = "pass"
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_closed = False
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def set(self, mode: str) -> None:
        """Make the connections that there are behave like that, and new ones until `pass_new`."""
        with self._lock:
            self.mode = mode
            for pair in list(self._pairs):
                pair.mode = mode
                if mode == "reset":
                    self._pairs.remove(pair)
                    pair.close(reset=True)

    def pass_new(self) -> None:
        """Let new connections pass; the old ones stay as they are."""
        self.mode = "pass"

    def heal(self) -> None:
        """Let all connections pass."""
        with self._lock:
            self.mode = "pass"
            for pair in self._pairs:
                pair.mode = "pass"

    def close(self) -> None:
        self._is_closed = True
        self._listener.close()
        with self._lock:
            for pair in self._pairs:
                pair.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode in ("refuse", "reset"):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            pair = _Pair(client, server, self.mode)
            with self._lock:
                self._pairs.append(pair)
            threading.Thread(target=self._carry, args=(pair,), daemon=True).start()

    def _carry(self, pair: _Pair) -> None:
        ends = {pair.client: pair.server, pair.server: pair.client}
        with selectors.DefaultSelector() as selector:
            try:
                for end in ends:
                    selector.register(end, selectors.EVENT_READ)
                while self._carry_some(pair, ends, selector):
                    pass
            except (OSError, ValueError):
                pass
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
        pair.close()

    def _carry_some(
        self, pair: _Pair, ends: dict[socket.socket, socket.socket], selector: selectors.BaseSelector
    ) -> bool:
        if pair.mode == "stall":
            time.sleep(0.02)
            return True
        for key, _ in selector.select(0.2):
            source: socket.socket = key.fileobj  # type: ignore[assignment]
            data = source.recv(65536)
            if not data:
                return False
            mode = pair.mode
            if (mode == "drop" and source is pair.client) or (mode == "mute" and source is pair.server):
                continue
            if mode == "delay":
                time.sleep(0.005)
            if mode == "cut":
                ends[source].sendall(data[: max(1, len(data) // 2)])
                return False
            ends[source].sendall(data)
        return True
