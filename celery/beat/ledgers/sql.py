"""The ledger in a database: two tables, a statement or a short transaction for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, MetaData, String, Table, exists, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from celery.beat.ledgers.base import LedgerError, Lost, State
from celery.utils.failpoints import is_active

__all__ = ("SQLLedger",)

#: Whether a test of the tests has switched claims off.
_GRANTS_ALL = is_active("unprotect.beat_claim")

_metadata = MetaData()
_leader = Table(
    "celeriac_beat_leader",
    _metadata,
    Column("name", String(155), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("beats", BigInteger, nullable=False),
)
_run = Table(
    "celeriac_beat_run",
    _metadata,
    Column("name", String(155), primary_key=True),
    Column("entry", String(200), primary_key=True),
    Column("last_run_at", BigInteger, nullable=False),
    Column("run_count", BigInteger, nullable=False),
)

R = TypeVar("R")


class SQLLedger:
    """Tables ``celeriac_beat_leader`` and ``celeriac_beat_run``, made where they are missing."""

    def __init__(self, engine: Any, name: str) -> None:
        self._engine = engine
        self._name = name
        self._has_tables = False

    def _do(self, steps: Callable[[Any], R]) -> R:
        """Run ``steps`` in one transaction."""
        try:
            if not self._has_tables:
                _create_tables(self._engine)
                self._has_tables = True
            with self._engine.begin() as connection:
                return steps(connection)
        except SQLAlchemyError as error:
            raise LedgerError(str(getattr(error, "orig", None) or error)) from error

    def _is_leader(self, state: State) -> Any:
        leader = _leader.c
        return exists().where(leader.name == self._name, leader.holder == state.holder, leader.epoch == state.epoch)

    def read(self) -> State | None:
        columns = _leader.c.holder, _leader.c.epoch, _leader.c.beats
        row = self._do(lambda c: c.execute(select(*columns).where(_leader.c.name == self._name)).first())
        return None if row is None else State(*row)

    def take(self, seen: State | None, holder: str) -> State | None:
        mine = State(holder, (seen.epoch if seen else 0) + 1, 0)

        def steps(connection: Any) -> bool:
            if seen is None:
                connection.execute(insert(_leader).values(name=self._name, **mine._asdict()))
                return True
            leader = _leader.c
            found = (
                leader.name == self._name,
                leader.holder == seen.holder,
                leader.epoch == seen.epoch,
                leader.beats == seen.beats,
            )
            return bool(connection.execute(update(_leader).where(*found).values(**mine._asdict())).rowcount)

        try:
            return mine if self._do(steps) else None
        except LedgerError as error:
            if isinstance(error.__cause__, IntegrityError):  # another was the first
                return None
            raise

    def renew(self, state: State) -> State:
        following = state._replace(beats=state.beats + 1)
        self._update_leader(state, beats=following.beats)
        return following

    def release(self, state: State) -> None:
        self._update_leader(state, holder="")

    def _update_leader(self, state: State, **values: Any) -> None:
        leader = _leader.c
        mine = leader.name == self._name, leader.holder == state.holder, leader.epoch == state.epoch
        if not self._do(lambda c: c.execute(update(_leader).where(*mine).values(**values)).rowcount):
            raise Lost

    def runs(self) -> dict[str, tuple[int, int]]:
        columns = _run.c.entry, _run.c.last_run_at, _run.c.run_count
        rows = self._do(lambda c: c.execute(select(*columns).where(_run.c.name == self._name)).all())
        return {entry: (last, count) for entry, last, count in rows}

    def write(self, state: State, runs: Mapping[str, tuple[int, int]]) -> None:
        known = self.runs()

        def steps(connection: Any) -> None:
            if not connection.execute(select(self._is_leader(state))).scalar():
                raise Lost
            for entry, run in runs.items():
                if entry not in known:
                    connection.execute(insert(_run).values(self._row(entry, run)))
                elif known[entry] != run:
                    connection.execute(update(_run).where(*self._of(entry)).values(_columns(run)))

        self._do(steps)

    def claim(self, state: State, name: str, before: int, run: tuple[int, int]) -> tuple[int, int] | None:
        if _GRANTS_ALL:
            return None

        def steps(connection: Any) -> tuple[int, int] | None:
            free = (*self._of(name), _run.c.last_run_at <= before, self._is_leader(state))
            if connection.execute(update(_run).where(*free).values(_columns(run))).rowcount:
                return None
            if not connection.execute(select(self._is_leader(state))).scalar():
                raise Lost
            found = connection.execute(select(_run.c.last_run_at, _run.c.run_count).where(*self._of(name))).first()
            if found is not None:
                return found[0], found[1]
            connection.execute(insert(_run).values(self._row(name, run)))
            return None

        return self._do(steps)

    def _of(self, entry: str) -> tuple[Any, Any]:
        return _run.c.name == self._name, _run.c.entry == entry

    def _row(self, entry: str, run: tuple[int, int]) -> dict[str, Any]:
        return {"name": self._name, "entry": entry, **_columns(run)}


def _columns(run: tuple[int, int]) -> dict[str, int]:
    return {"last_run_at": run[0], "run_count": run[1]}


def _create_tables(engine: Any) -> None:
    try:
        _metadata.create_all(engine)
    except SQLAlchemyError:  # two at once disturb each other; by now the tables are there
        _metadata.create_all(engine)
