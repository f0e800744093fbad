"""The file: its tables, and every statement on them."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from celery.transports.sqlite.holders import Holders
from celery.utils.failpoints import failpoint

__all__ = ("Store", "Taken")

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    payload BLOB NOT NULL,
    holder INTEGER,
    started INTEGER NOT NULL DEFAULT 0,
    redelivered INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    started_losses INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS messages_waiting ON messages (queue, priority DESC, id) WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS messages_held ON messages (holder) WHERE holder IS NOT NULL;
CREATE TABLE IF NOT EXISTS bindings (
    exchange TEXT NOT NULL, routing_key TEXT NOT NULL, pattern TEXT NOT NULL, queue TEXT NOT NULL,
    PRIMARY KEY (exchange, routing_key, pattern, queue)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queues (
    queue TEXT PRIMARY KEY, expires_ms INTEGER, used_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holders (id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL);
"""
#: Messages of higher priority first, then the oldest.
TAKE = """
UPDATE messages SET holder = ?, started = 0 WHERE id IN (
    SELECT id FROM messages WHERE holder IS NULL AND queue IN ({}) ORDER BY priority DESC, id LIMIT ?
) RETURNING id, queue, payload, redelivered, losses, started_losses, priority
"""


#: Connections of the parent: a forked child must neither use nor close them.
_inherited: list[sqlite3.Connection] = []


class Taken(NamedTuple):
    """A message that this process now holds."""

    id: int
    queue: str
    payload: bytes
    redelivered: int
    losses: int
    started_losses: int


class Store:
    """One file, opened by each thread and process for itself."""

    def __init__(self, path: str, busy_seconds: float = 10.0, synchronous: str = "NORMAL") -> None:
        self.path = os.path.abspath(path)
        self.busy_seconds = busy_seconds
        self.synchronous = synchronous
        self.holders = Holders.of(f"{self.path}-holders")
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._pid = os.getpid()

    # -- connections

    @property
    def _db(self) -> sqlite3.Connection:
        local = self._local
        if getattr(local, "pid", None) != os.getpid():
            if self._pid != os.getpid():
                _inherited.extend(self._opened)
                self._opened, self._pid = [], os.getpid()
            local.db = self._open()
            local.pid = os.getpid()
        return local.db  # type: ignore[no-any-return]

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=self.busy_seconds, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self.synchronous}")
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        self._opened.append(db)
        return db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        opened, self._opened = self._opened, []
        for db in opened:
            try:
                db.close()
            except sqlite3.Error:  # another thread is using it; it ends with the process
                pass
        self._local = threading.local()

    def version(self) -> int:
        """Return a number that changes when another connection has written."""
        return self._db.execute("PRAGMA data_version").fetchone()[0]  # type: ignore[no-any-return]

    # -- messages

    def put(self, queues: Iterable[str], payload: bytes, priority: int) -> None:
        failpoint("publish.before_send")
        with self._writing() as db:
            db.executemany(
                "INSERT INTO messages (queue, priority, payload) VALUES (?, ?, ?)",
                [(queue, priority, payload) for queue in queues],
            )
        failpoint("publish.after_send")

    def take(self, queues: Sequence[str], limit: int) -> list[Taken]:
        """Take up to ``limit`` messages, marked as held by this process."""
        places = ", ".join("?" * len(queues))
        waiting = f"SELECT 1 FROM messages WHERE holder IS NULL AND queue IN ({places}) LIMIT 1"
        if not limit or self._db.execute(waiting, queues).fetchone() is None:
            return []
        with self._writing() as db:
            holder = self._holder(db)
            rows = db.execute(TAKE.format(places), (holder, *queues, limit)).fetchall()
        failpoint("fetch.after_lease")
        return [Taken(*row[:6]) for row in sorted(rows, key=lambda row: (-row[6], row[0]))]

    def _holder(self, db: sqlite3.Connection) -> int:
        if self.holders.own is None:
            cursor = db.execute("INSERT INTO holders (pid) VALUES (?)", (os.getpid(),))
            self.holders.claim(cursor.lastrowid or 0)
        return self.holders.own  # type: ignore[return-value]

    def forget(self, ids: Sequence[int]) -> int:
        """Delete settled messages; return how many were still ours."""
        failpoint("ack.before_send")
        with self._writing() as db:
            count = 0
            for number in ids:
                query = "DELETE FROM messages WHERE id = ? AND holder = ?"
                count += db.execute(query, (number, self.holders.own)).rowcount
        failpoint("ack.after_send")
        return count

    def put_back(self, ids: Sequence[int], redelivered: bool = True, at_end: bool = False) -> None:
        """Let others take messages that are ours; ``at_end``: after all that wait now."""
        with self._writing() as db:
            for number in ids:
                db.execute(
                    "UPDATE messages SET holder = NULL, redelivered = redelivered | ? WHERE id = ? AND holder = ?",
                    (int(redelivered), number, self.holders.own),
                )
                if at_end:
                    query = (
                        "UPDATE messages SET id = (SELECT MAX(id) + 1 FROM messages) WHERE id = ? AND holder IS NULL"
                    )
                    db.execute(query, (number,))

    def count_loss(self, number: int) -> None:
        """Put back a message of ours because what ran it was lost."""
        with self._writing() as db:
            db.execute(
                "UPDATE messages SET holder = NULL, redelivered = 1, losses = losses + 1, "
                "started_losses = started_losses + 1 WHERE id = ? AND holder = ?",
                (number, self.holders.own),
            )

    def mark_started(self, number: int) -> None:
        with self._writing() as db:
            db.execute("UPDATE messages SET started = 1 WHERE id = ? AND holder = ?", (number, self.holders.own))

    def move(self, number: int, queue: str, payload: bytes) -> None:
        """Replace a message of ours by another one in ``queue``, in one step."""
        with self._writing() as db:
            query = "DELETE FROM messages WHERE id = ? AND holder = ?"
            if db.execute(query, (number, self.holders.own)).rowcount:
                db.execute("INSERT INTO messages (queue, payload) VALUES (?, ?)", (queue, payload))

    def size(self, queue: str) -> int:
        query = "SELECT COUNT(*) FROM messages WHERE queue = ? AND holder IS NULL"
        return self._db.execute(query, (queue,)).fetchone()[0]  # type: ignore[no-any-return]

    def purge(self, queue: str) -> int:
        with self._writing() as db:
            return db.execute("DELETE FROM messages WHERE queue = ? AND holder IS NULL", (queue,)).rowcount

    # -- what the dead have left

    def recover(self) -> int:
        """Put back what holders that have died held; return how much that was."""
        query = "SELECT DISTINCT holder FROM messages WHERE holder IS NOT NULL"
        recovered = 0
        for (holder,) in self._db.execute(query).fetchall():
            if holder == self.holders.own:
                continue
            with self.holders.if_dead(holder) as is_dead:
                if is_dead:
                    failpoint("sweep.after_read")
                    recovered += self._release(holder)
        return recovered

    def _release(self, holder: int) -> int:
        with self._writing() as db:
            db.execute("DELETE FROM holders WHERE id = ?", (holder,))
            return db.execute(
                "UPDATE messages SET holder = NULL, redelivered = 1, losses = losses + 1, "
                "started_losses = started_losses + started WHERE holder = ?",
                (holder,),
            ).rowcount

    # -- queues and bindings

    def declare(self, queue: str, expires_ms: int | None) -> None:
        with self._writing() as db:
            db.execute(
                "INSERT INTO queues (queue, expires_ms, used_at) VALUES (?, ?, ?) "
                "ON CONFLICT (queue) DO UPDATE SET expires_ms = excluded.expires_ms, used_at = excluded.used_at",
                (queue, expires_ms, time.time()),
            )

    def exists(self, queue: str) -> bool:
        query = "SELECT 1 FROM queues WHERE queue = ?1 UNION SELECT 1 FROM messages WHERE queue = ?1"
        return self._db.execute(query, (queue,)).fetchone() is not None

    def delete(self, queue: str) -> None:
        with self._writing() as db:
            for table in ("queues", "bindings"):
                db.execute(f"DELETE FROM {table} WHERE queue = ?", (queue,))
            db.execute("DELETE FROM messages WHERE queue = ? AND holder IS NULL", (queue,))

    def keep_in_use(self, queues: Iterable[str]) -> None:
        """Note that queues which expire are used, and delete those that nobody used for their time."""
        now = time.time()
        with self._writing() as db:
            db.executemany("UPDATE queues SET used_at = ? WHERE queue = ?", [(now, queue) for queue in queues])
            unused = "SELECT queue FROM queues WHERE expires_ms IS NOT NULL AND used_at + expires_ms / 1000.0 < ?"
            for (queue,) in db.execute(unused, (now,)).fetchall():
                for table in ("queues", "bindings", "messages"):
                    db.execute(f"DELETE FROM {table} WHERE queue = ?", (queue,))

    def bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        row = (exchange, routing_key, pattern, queue)
        known = "SELECT 1 FROM bindings WHERE exchange = ? AND routing_key = ? AND pattern = ? AND queue = ?"
        if self._db.execute(known, row).fetchone() is None:
            with self._writing() as db:
                db.execute("INSERT OR IGNORE INTO bindings VALUES (?, ?, ?, ?)", row)

    def bindings(self, exchange: str) -> list[tuple[Any, ...]]:
        query = "SELECT routing_key, pattern, queue FROM bindings WHERE exchange = ?"
        return self._db.execute(query, (exchange,)).fetchall()
