"""Options of a signature: how call options and its own meet, how they are copied, how stamps enter them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

__all__ = ("copied", "merged", "stamped", "write_stamps")

#: Once set, these stay: a member cannot leave its group, and a stamp is a fact about the signature that bears it.
LASTING = frozenset(("group_id", "stamped_headers"))

_PLAIN = frozenset((str, int, float, bool, type(None), bytes))


def merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``own`` overridden by ``given``, except for what lasts."""
    if not own:
        return dict(given)
    if not given:
        return dict(own)
    options = {**own, **given}
    for name in LASTING:
        if name in own:
            options[name] = own[name]
    for name in own.get("stamped_headers") or ():
        if name in own:
            options[name] = own[name]
    return options


def copied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that shares nothing that can change, but for the body of a chord.

    The body is the same for all members of a header and never changed once it is there, so a header of n has one.
    """
    return {
        name: value if type(value) in _PLAIN or name == "chord" else _copied_value(value)
        for name, value in options.items()
    }


def _copied_value(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)([_copied_value(item) for item in value]) if type(value) in (list, tuple) else list(value)
    clone = getattr(value, "clone", None)
    if clone is not None:
        return clone()
    return deepcopy(value) if isinstance(value, (dict, set)) else value


def stamped(headers: Mapping[str, Any], new: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return ``headers`` overridden by ``new``, with the stamps among both named in ``stamped_headers``."""
    result = {**headers, **new} if new else dict(headers)
    names = {*_stamps_in(headers), *(_stamps_in(new) if new else ())}
    result["stamped_headers"] = sorted(names & result.keys())
    return result


def _stamps_in(headers: Mapping[str, Any]) -> Iterable[str]:
    """Return which of ``headers`` are stamps: those it names, all if it names none."""
    named = headers.get("stamped_headers")
    return headers if named is None else named


def write_stamps(options: dict[str, Any], headers: Mapping[str, Any], append_stamps: bool) -> None:
    """Write ``headers``, which name their stamps, into ``options``.

    With ``append_stamps``, a stamp that is there already gets a list of the new and the old values.
    """
    old, new = set(options.get("stamped_headers") or ()), set(headers["stamped_headers"])
    kept = {name: options[name] for name in old & new if name in options} if append_stamps else {}
    options.update(headers)
    for name, value in kept.items():
        options[name] = _once([*_as_list(headers[name]), *_as_list(value)])
    options["stamped_headers"] = sorted(old | new)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _once(values: Iterable[Any]) -> list[Any]:
    """Return each value once, in order; they need not be hashable."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
