"""A debugger for tasks: ``rdb.set_trace()`` waits for a telnet connection and gives it ``pdb``.

The port is ``CELERY_RDB_PORT`` (6899) plus the number of the worker's process; if it is taken, the next free one.  The
debugger listens on ``CELERY_RDB_HOST`` (127.0.0.1) only: whoever can connect can run anything.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pdb import Pdb
from types import FrameType
from typing import Any

from billiard.process import current_process

from celery.platforms import ignore_errno

__all__ = ("CELERY_RDB_HOST", "CELERY_RDB_PORT", "DEFAULT_PORT", "Rdb", "debugger", "set_trace")

DEFAULT_PORT = 6899

CELERY_RDB_HOST = os.environ.get("CELERY_RDB_HOST") or "127.0.0.1"
CELERY_RDB_PORT = int(os.environ.get("CELERY_RDB_PORT") or DEFAULT_PORT)

#: The session that is open in this process.
_current: Rdb | None = None

_frame: Any = getattr(sys, "_getframe")  # noqa: B009  # a name of the interpreter's that not every one has

_INVITATION = """\
{ident}: Ready to connect: telnet {host} {port}

Type `exit` in session to continue.

{ident}: Waiting for client...
"""


class Rdb(Pdb):
    """``pdb`` over a socket.  Making one waits until somebody connects; ``out`` says on which port (default:
    the output of the program).

    ``continue``, ``exit`` and ``quit`` end the session, and the program goes on.

    Raises:
        OSError: none of ``port_search_limit`` ports is free.
    """

    me = "Remote Debugger"

    def __init__(
        self,
        host: str = CELERY_RDB_HOST,
        port: int = CELERY_RDB_PORT,
        port_search_limit: int = 100,
        port_skew: int = 0,
        out: Any = None,
    ) -> None:
        self.active = True
        self.out = sys.stdout if out is None else out
        self.host = host
        self._listener, self.port = self.get_avail_port(host, port, port_search_limit, port_skew)
        self.ident = f"{self.me}:{self.port}"
        self._prev_handles = sys.stdin, sys.stdout
        self._client: socket.socket | None = None
        self._handle: Any = None
        try:
            self.say(_INVITATION.format(ident=self.ident, host=self.host, port=self.port))
            self._client, address = self._listener.accept()
            self.remote_addr = ":".join(str(part) for part in address[:2])
            self._handle = self._client.makefile("rw")
            super().__init__(completekey="tab", stdin=self._handle, stdout=self._handle)
        except BaseException:
            self._close_session()
            raise
        sys.stdin = sys.stdout = self._handle
        self.say(f"{self.ident}: Now in session with {self.remote_addr}.")

    def get_avail_port(self, host: str, port: int, search_limit: int = 100, skew: int = 0) -> tuple[socket.socket, int]:
        """Return a socket that listens on a free port from ``port`` on, and the port.

        Worker processes begin at ports of their own: the number at the end of their name is added.
        """
        number = current_process().name.rpartition("-")[2]
        first = port + skew + (int(number) if number.isdigit() else 0)
        for candidate in range(first, first + search_limit):
            listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, candidate))
                listener.listen(1)
            except OSError as error:
                listener.close()
                if error.errno not in (errno.EADDRINUSE, errno.EINVAL):
                    raise
            else:
                return listener, candidate
        raise OSError(
            errno.EADDRINUSE,
            f"{self.me}: no free port from {first} to {first + search_limit - 1}; set CELERY_RDB_PORT to another one",
        )

    def say(self, m: str) -> None:
        """Tell whoever watches the program's output."""
        print(m, file=self.out, flush=True)

    # -- the session

    def __enter__(self) -> Rdb:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close_session()

    def _close_session(self) -> None:
        """Give the program its input and output back, and hang up; more than once does no harm."""
        if not self.active:
            return
        self.active = False
        if self._handle is not None and sys.stdout is self._handle:
            sys.stdin, sys.stdout = self._prev_handles
        for open_file in (self._handle, self._client, self._listener):
            if open_file is not None:
                with ignore_errno(errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):  # the other side was faster
                    open_file.close()
        if self._client is not None:
            self.say(f"{self.ident}: Session with {self.remote_addr} ended.")

    def do_continue(self, arg: Any) -> Any:
        """Let the program go on, and end the session."""
        self._close_session()
        self.set_continue()
        return 1

    do_c = do_cont = do_continue

    def do_quit(self, arg: Any) -> Any:
        """End the session; the program goes on, for it is not ours to end."""
        self._close_session()
        self.set_continue()
        return 1

    do_q = do_exit = do_EOF = do_quit

    def set_quit(self) -> None:
        """Called where ``pdb`` would end the program: let it go on in place of that."""
        self._close_session()
        self.set_continue()


def debugger() -> Rdb:
    """Return the open session, or wait for a new one."""
    global _current
    if _current is None or not _current.active:
        _current = Rdb()
    return _current


def set_trace(frame: FrameType | None = None) -> None:
    """Stop here (or in ``frame``), wait for a telnet connection, and debug."""
    return debugger().set_trace(_frame().f_back if frame is None else frame)
