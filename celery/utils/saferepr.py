"""Representations of anything: short, never failing, never endless.

Nearly all arguments of tasks are small and plain; ``repr`` itself gives the text for these, and all that is left
to do is to make sure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ("saferepr", "reprstream")

_ATOMS = frozenset((int, float, bool, type(None)))


def saferepr(o: Any, maxlen: int | None = None, maxlevels: int = 3, seen: set[int] | None = None) -> str:
    """Return ``repr(o)``, cut after about ``maxlen`` characters and below ``maxlevels`` nested containers.

    Strings are shown as they are, with only quotes escaped.
    """
    if seen is None and _is_plain(o, maxlen or 1 << 20, maxlevels):
        try:
            text = repr(o)
        except ValueError:  # an int with too many digits
            pass
        else:
            # either character means that repr() escaped something, or chose other quotes
            if (maxlen is None or len(text) < maxlen) and '"' not in text and "\\" not in text:
                return text
    return _cut(reprstream(deque([[o]]), seen, maxlevels), maxlen)


def _is_plain(o: Any, room: int, levels: int) -> bool:
    """Say whether ``repr(o)`` is cheap and safe: exact built-in types, few enough, not too deep."""
    kind = type(o)
    if kind in _ATOMS:
        return True
    if kind is str:
        return len(o) < room
    if kind is tuple or kind is list:
        if levels <= 0 or len(o) > room:
            return False
        for item in o:  # noqa: SIM110  # a generator costs more than the whole loop
            if type(item) not in _ATOMS and not _is_plain(item, room, levels - 1):
                return False
        return True
    if kind is dict:
        if levels <= 0 or len(o) > room:
            return False
        for key, item in o.items():
            if type(key) is not str or (type(item) not in _ATOMS and not _is_plain(item, room, levels - 1)):
                return False
        return True
    return False


# -- the long way


class _Token(NamedTuple):
    text: str
    #: "(" opens, ")" closes, "," separates; else a value, which may be cut
    kind: str = ""
    #: what a string or bytes is put between
    before: str = ""
    after: str = ""
    #: what closes again what this opens
    closer: str = ""


def reprstream(
    stack: deque[Iterable[Any]],
    seen: set[int] | None = None,
    maxlevels: int = 3,
    level: int = 0,
    isinstance: Any = isinstance,
) -> Iterator[_Token]:
    """Yield the pieces of text that represent the objects in the iterables of ``stack``."""
    path = set(seen or ())
    while stack:
        for value in stack.popleft():
            yield from _tokens(value, path, maxlevels, level)


def _tokens(value: Any, path: set[int], maxlevels: int, level: int) -> Iterator[_Token]:
    if isinstance(value, str):
        yield _Token(value, "str", "'", "'")
    elif isinstance(value, bytes):
        yield _bytes_token(value)
    elif isinstance(value, (dict, list, tuple, set, frozenset)):
        if not value and isinstance(value, (set, frozenset)):
            yield _Token(f"{type(value).__name__}()")
        elif id(value) in path:
            yield _Token(f"<Recursion on {type(value).__name__} with id={id(value)}>")
        else:
            yield from _container_tokens(value, path, maxlevels, level)
    else:
        yield _Token(_object_repr(value))


def _bytes_token(value: bytes) -> _Token:
    return _Token(value, "bytes", "b'", "'")  # type: ignore[arg-type]  # decoded once it is cut


def _container_tokens(value: Any, path: set[int], maxlevels: int, level: int) -> Iterator[_Token]:
    before, after = _brackets(value)
    if level >= maxlevels:
        yield _Token(f"{before}...{after}", ",")
        return
    yield _Token(before, "(", closer=after)
    path.add(id(value))
    try:
        yield from _item_tokens(value, path, maxlevels, level + 1)
    finally:
        path.discard(id(value))
    yield _Token(after, ")")


def _item_tokens(value: Any, path: set[int], maxlevels: int, level: int) -> Iterator[_Token]:
    is_mapping = isinstance(value, dict)
    is_first = True
    # a copy, for another thread may change it under us
    for item in list(value.items() if is_mapping else value):
        if not is_first:
            yield _Token(", ", ",")
        is_first = False
        if is_mapping:
            yield from _tokens(item[0], path, maxlevels, 0)  # keys are small, and tell most
            yield _Token(": ", ",")
            item = item[1]
        yield from _tokens(item, path, maxlevels, level)


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, dict):
        return "{", "}"
    if isinstance(value, list):
        return "[", "]"
    if isinstance(value, tuple):
        return "(", ",)" if len(value) == 1 else ")"
    return ("{", "}") if isinstance(value, set) else ("frozenset({", "})")


def _object_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # of a user's class; the task is sent all the same
        return f"<Unrepresentable {type(value)!r}{id(value):#x}: {type(error).__name__}({_message(error)})>"


def _message(error: Exception) -> str:
    try:
        return repr(str(error))
    except Exception:
        return "..."


def _cut(tokens: Iterator[_Token], maxlen: int | None) -> str:
    """Join ``tokens`` until ``maxlen`` is used up, then close what is open."""
    left: float = float("inf") if maxlen is None else maxlen
    out: list[str] = []
    closers: list[str] = []
    for text, kind, before, after, _ in _with_closers(tokens, closers):
        if left <= 0 and kind != ")":
            out.append(", ...")
            out.extend(reversed(closers))
            break
        if kind in _SEPARATORS:
            out.append(text)
        else:
            text = _cut_value(text, kind, left)
            out += (before, text, after)
        left -= len(before) + len(text) + len(after)
    return "".join(out)


_SEPARATORS = frozenset("(),")


def _with_closers(tokens: Iterator[_Token], closers: list[str]) -> Iterator[_Token]:
    """Keep in ``closers`` what would close the containers that are open."""
    for token in tokens:
        yield token
        if token.kind == "(":
            closers.append(token.closer)
        elif token.kind == ")":
            closers.pop()


def _cut_value(text: Any, kind: str, left: float) -> str:
    if kind == "bytes":
        return _cut_bytes(text, left)
    if len(text) >= left:
        text = text[: int(left)].rsplit(" ", 1)[0] + "..."
    return str(text.replace("'", "\\'") if kind == "str" else text)


def _cut_bytes(value: bytes, left: float) -> str:
    """Return bytes as text, in hexadecimal digits where they are no UTF-8."""
    suffix = ""
    if len(value) > left:
        value, suffix = value[: int(left)], "..."
    try:
        return value.decode() + suffix
    except UnicodeDecodeError:
        return value.hex() + suffix
