"""Stamps: headers that a visitor writes on all parts of a canvas, for people and ``revoke_by_stamped_headers``."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import Any

from celery.canvas.options import stamped

__all__ = ("StampingVisitor", "stamp_links")


class StampingVisitor(metaclass=ABCMeta):
    """Decides what is written where; ``signature.stamp(visitor)`` shows it every part of a canvas.

    A hook gets the part and what was stamped around it, and returns more: ``{"name": value}``.  If that has the key
    ``"stamped_headers"``, only the names in there are stamps, and the rest is kept as options of the signature.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Called for every task, last of all parts it belongs to."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        """Called before the members of a group; what it returns is stamped on all of them."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027  # may be left out
        """Called after the members of a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        """Called before the steps of a chain; what it returns is stamped on all of them."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027  # may be left out
        """Called after the steps of a chain."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> dict[str, Any]:
        """Called before the header of a chord, which is a group then; what it returns is stamped on header and body."""
        return self.on_group_start(sig.header_group(), **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:
        """Called after the header of a chord."""
        self.on_group_end(sig.tasks, **header)

    def on_chord_body(self, sig: Any, **header: Any) -> dict[str, Any]:
        """Called before the body of a chord; ``sig`` is the chord."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> dict[str, Any]:
        """Called for what is linked to a signature."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> dict[str, Any]:
        """Called for what is linked to the failure of a signature."""
        return {}


def stamp_links(
    signature: Any, visitor: Any, append_stamps: bool, headers: Mapping[str, Any], as_signature: Any
) -> None:
    """Stamp callbacks and errbacks of ``signature``; ``as_signature`` turns a mapping into one."""
    for option, hook in (("link", "on_callback"), ("link_error", "on_errback")):
        links = signature.options.get(option)
        if not links:
            continue
        if not isinstance(links, list):
            links = [links]
        found = signature.options[option] = [as_signature(link, signature._app) for link in links]
        for link in found:
            if not hasattr(link, "stamp"):
                continue  # the id of a task, in messages of old
            extra = getattr(visitor, hook)(link, **headers) if visitor is not None else None
            link.stamp(visitor, append_stamps, **stamped(headers, extra))
