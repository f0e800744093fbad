"""What this process holds of one broker: deliveries that Redis has recorded under our tags.

A lease belongs to the process, not to a connection.  So a delivery whose task already runs survives a lost
connection: its acknowledgement is sent on the next one.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from celery.transports.message import Message
from celery.utils.deadlines import deadline

if TYPE_CHECKING:
    from celery.transports.redis.keeper import Keeper

__all__ = ("Lease", "Unheard", "lease_for")

#: What a process that ends gives a broker that it had lost, which has had its chance.  Without it: 1.0 s measured.
LAST_TRY_SECONDS = 0.5

#: How often it is looked what an answer that was lost has left: when the next connection opens, a second later, and a
#: third of the lease after that.
LOOKS = 3


class Unheard:
    """Numbers that were asked for: the server may have recorded messages under them, and nobody has heard of it."""

    __slots__ = ("is_heard", "key_of", "looks", "numbers")

    def __init__(self, numbers: range, key_of: Callable[[str, bytes], str]) -> None:
        self.numbers = numbers
        #: Gives the list to which a payload of a queue belongs.
        self.key_of = key_of
        self.looks = LOOKS
        #: The answer came after all: another thread gave the connection up while it was read.
        self.is_heard = False


class Lease:
    """The deliveries, pending acknowledgements and pending returns of one process at one broker."""

    def __init__(self, open_client: Callable[[], Any], unacked: str, index: str) -> None:
        #: Every tag is this and a number.  "~" tells our tags from those of kombu.
        self.prefix = f"~{secrets.token_hex(6)}:"
        self.next_number = 1
        self.unacked = unacked
        self.index = index
        #: Like ``index``, of what runs and must not run again, so that nobody gives it out when we die.
        self.begun_index = f"{index}.begun"
        self.open_client = open_client
        #: One dictionary of tag -> message for each open channel.
        self.holders: list[dict[str, Message]] = []
        #: Started, but the channel is gone.
        self.detached: dict[str, Message] = {}
        #: Not started, and the connection was lost: to be put back on the next one.
        self.returns: dict[str, Message] = {}
        #: Tags to acknowledge with the next request.
        self.acks: list[str] = []
        #: Tags whose acknowledgement was sent once, on a connection that broke before the answer came.
        self.doubtful: set[str] = set()
        #: What was asked for on connections that broke before the answer came.
        self.unheard: list[Unheard] = []
        #: Tags that have started since the last renewal.
        self.marks: list[str] = []
        #: Tags of ``begun_index``; whether Redis has been told.
        self.begun: dict[str, bool] = {}
        #: Tags that began since Redis was last told, and tags that ended.
        self.begins: list[str] = []
        self.ends: list[str] = []
        #: Moves that could not be sent because the connection was lost.
        self.moves: list[Any] = []
        #: Deliveries to park with the next request.
        self.parks: list[Any] = []
        self.renewed_at = 0.0
        self.lock = threading.Lock()
        #: The thread that renews where no event loop does.
        self.keeper: Keeper | None = None
        self.is_closing = False
        #: The last connection broke, and there has been none since.
        self.is_cut_off = False
        #: One queue of (queue, tag, payload) for each open channel: leased, not yet delivered.
        self.backlogs: list[deque[tuple[str, str, bytes]]] = []

    def held(self) -> tuple[list[str], list[str]]:
        """Return the tags of all that this process holds: (started, waiting)."""
        started: list[str] = []
        waiting: list[str] = []
        for holder in (*self.holders, self.detached, self.returns):
            for tag, message in list(holder.items()):
                if not tag.startswith("~"):
                    continue
                (started if message.has_started else waiting).append(tag)
        for backlog in self.backlogs:
            waiting += [tag for _, tag, _ in list(backlog) if tag.startswith("~")]
        waiting += [park.tag for park in list(self.parks)]
        return started, waiting

    def find(self, tag: str) -> Message | None:
        for holder in (*self.holders, self.detached, self.returns):
            if tag in holder:
                return holder[tag]
        return None

    def holds(self, tag: str) -> bool:
        return self.find(tag) is not None or any(tag == held for log in self.backlogs for _, held, _ in log)

    def take_acks(self) -> list[str]:
        acks, self.acks = self.acks, []
        return acks

    def take_marks(self) -> list[str]:
        """Return the tags that started since the last call and are still held."""
        marks, self.marks = self.marks, []
        return [tag for tag in marks if self.find(tag) is not None]

    def begin(self, tag: str) -> None:
        """What runs for ``tag`` must not run a second time."""
        self.begun[tag] = False
        self.begins.append(tag)

    def end(self, tag: str) -> bool:
        """What began is over; return false if it never began."""
        is_told = self.begun.pop(tag, None)
        if is_told is None:
            return False
        (self.ends if is_told else self.acks).append(tag)
        return True

    def take_begins(self) -> list[str]:
        """Return the tags that began since the last call and have not ended."""
        begins, self.begins = self.begins, []
        tags = [tag for tag in begins if tag in self.begun]
        self.begun.update(dict.fromkeys(tags, True))
        return tags

    def take_ends(self) -> list[str]:
        ends, self.ends = self.ends, []
        return ends

    def doubt(self, acks: Iterable[str]) -> None:
        """Take back acknowledgements whose fate is unknown; sending them again does no harm."""
        acks = list(acks)
        self.doubtful.update(acks)
        self.acks[:0] = acks

    def doubt_parks(self, parks: list[Any]) -> None:
        """Take back what was to be parked when the connection was lost; parking twice does no harm."""
        self.doubtful.update(park.tag for park in parks)
        self.parks[:0] = parks

    def forget(self, tags: Iterable[str]) -> list[Message]:
        """Drop tags that are no longer ours; return their messages, as far as they are known."""
        messages = []
        for tag in tags:
            message = self.find(tag)
            for backlog in self.backlogs:
                for entry in [each for each in backlog if each[1] == tag]:
                    backlog.remove(entry)
            if message is not None:
                message.is_lost = True
                messages.append(message)
                for holder in (*self.holders, self.detached, self.returns):
                    holder.pop(tag, None)
        return messages

    @property
    def is_idle(self) -> bool:
        held = (self.detached, self.returns, self.begun, *self.holders, *self.backlogs)
        return not (self.acks or self.ends or self.moves or self.parks or any(held))


_leases: dict[Hashable, Lease] = {}
_registry_lock = threading.Lock()


def lease_for(key: Hashable, client_factory: Callable[[], Callable[[], Any]], unacked: str, index: str) -> Lease:
    """Return this process's lease at the broker that ``key`` names; ``client_factory`` is called for a new one."""
    with _registry_lock:
        lease = _leases.get(key)
        if lease is None:
            lease = _leases[key] = Lease(client_factory(), unacked, index)
        return lease


def all_leases() -> list[Lease]:
    return list(_leases.values())


def _at_exit() -> None:
    """Settle what is left: send the acknowledgements, put the rest back, so that nobody waits for the lease to end."""
    from celery.transports.redis.recovery import settle

    for lease in all_leases():
        lease.is_closing = True
        if not lease.is_idle:
            try:
                with deadline(LAST_TRY_SECONDS) if lease.is_cut_off else nullcontext():
                    settle(lease)
            except Exception:  # the broker may be gone too; then the lease ends by itself
                pass


def _after_fork() -> None:
    """What the parent holds is not the child's."""
    global _registry_lock
    _registry_lock = threading.Lock()
    _leases.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
