"""What a ledger promises to the beats that share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

__all__ = ("Ledger", "LedgerError", "Lost", "State")


class State(NamedTuple):
    """Who leads, the how many-th leader that is, and how often it has counted up."""

    holder: str
    epoch: int
    beats: int


class LedgerError(Exception):
    """The ledger cannot be reached, or does not answer."""


class Lost(LedgerError):
    """Another beat leads by now."""


class Ledger(Protocol):
    """A store that all beats see; every method is one atomic step and raises `LedgerError` if it fails.

    Times are microseconds since 1970.  A ``run`` is ``(last run, count)``.
    """

    def read(self) -> State | None:
        """Return who leads; ``None`` if nobody ever did."""

    def take(self, seen: State | None, holder: str) -> State | None:
        """Make ``holder`` the leader if the state is still ``seen``; return the new state, or ``None``."""

    def renew(self, state: State) -> State:
        """Count up; raises `Lost`."""

    def release(self, state: State) -> None:
        """Let anybody take over at once."""

    def runs(self) -> dict[str, tuple[int, int]]:
        """Return all runs by name."""

    def write(self, state: State, runs: Mapping[str, tuple[int, int]]) -> None:
        """Put these runs in, whatever was there; raises `Lost`."""

    def claim(self, state: State, name: str, before: int, run: tuple[int, int]) -> tuple[int, int] | None:
        """Enter ``run`` if no later one than ``before`` is known; else return the one that is.  Raises `Lost`."""
