"""Small tools for text: cut, fill, indent, expand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import StringIO
from typing import Any

__all__ = (
    "abbr",
    "abbrtask",
    "dedent",
    "dedent_initial",
    "ensure_newlines",
    "ensure_sep",
    "fill_paragraphs",
    "indent",
    "join",
    "pluralize",
    "pretty",
    "str_to_list",
    "simple_format",
    "truncate",
)

_FORMAT = r"%(\w|%)"


def str_to_list(s: Any) -> Any:
    """Split text at commas; return anything else as it is."""
    return s.split(",") if isinstance(s, str) else s


def dedent_initial(s: str, n: int = 4) -> str:
    """Take ``n`` leading spaces away, if they are there."""
    return s[n:] if s[:n] == " " * n else s


def dedent(s: str, sep: str = "\n") -> str:
    """Take four leading spaces off every line."""
    return sep.join(dedent_initial(line) for line in s.splitlines())


def fill_paragraphs(s: str, width: int, sep: str = "\n") -> str:
    """Wrap each paragraph to ``width``."""
    from textwrap import fill

    return sep.join(fill(paragraph, width) for paragraph in s.split(sep))


def join(l: Iterable[str | None], sep: str = "\n") -> str:  # noqa: E741  # public name
    """Join what is not empty."""
    return sep.join(item for item in l if item)


def ensure_sep(sep: str, s: str, n: int = 2) -> str:
    """Return ``s`` with at least ``n`` times ``sep`` at its end."""
    return s + sep * (n - s.count(sep))


def ensure_newlines(s: str, n: int = 2) -> str:
    return ensure_sep("\n", s, n)


def abbr(S: str | None, max: int, ellipsis: str | bool = "...") -> str:
    """Cut ``S`` to ``max`` characters, the ellipsis among them; ``None`` is ``???``."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    return S[: max - len(ellipsis)] + ellipsis if isinstance(ellipsis, str) and ellipsis else S[:max]


def abbrtask(S: str | None, max: int) -> str:
    """Cut a task name to about ``max`` characters, keeping its last part: ``feeds[.]refresh``."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    module, _, function = S.rpartition(".")
    return f"{abbr(module, max - len(function) - 3, False)}[.]{function}"


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Put ``indent`` spaces before each line."""
    return sep.join(" " * indent + line for line in t.split(sep))


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Cut ``s`` to ``maxlen`` characters and add ``suffix`` when something was cut."""
    return s[:maxlen].rsplit(" ", 1)[0] + suffix if len(s) >= maxlen else s


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """Return ``text`` with ``suffix`` unless ``n`` is one."""
    return text if n == 1 else text + suffix


def pretty(value: Any, width: int = 80, nl_width: int = 80, sep: str = "\n", **kw: Any) -> str:
    """Format ``value`` for a log; a mapping starts on its own line."""
    from pprint import pformat

    if isinstance(value, dict):
        return f"{sep} {pformat(value, 4, nl_width)[1:]}"
    return pformat(value, width=width, **kw)


def match_case(s: str, other: str) -> str:
    """Return ``s`` in upper case if ``other`` is, else in lower case."""
    return s.upper() if other.isupper() else s.lower()


@lru_cache(maxsize=32)
def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(pattern)


def simple_format(
    s: str, keys: Mapping[str, Any], pattern: str | re.Pattern[str] = re.compile(_FORMAT), expand: str = r"\1"
) -> str:
    """Replace ``%x`` in ``s`` by ``keys["x"]``, which may be a function.

    Raises:
        ValueError: ``keys`` does not know a letter.
    """
    if not s:
        return s
    keys = {"%": "%", **keys}

    def replacement(match: re.Match[str]) -> str:
        key = match.expand(expand)
        try:
            value = keys[key]
        except KeyError:
            raise ValueError(
                f"Unknown format %{key} in {s!r}. Known are {', '.join('%' + known for known in sorted(keys))}. "
                f"Write %%{key} where the percent sign itself is meant."
            ) from None
        return str(value()) if callable(value) else str(value)

    return _compiled(pattern).sub(replacement, s)


def remove_repeating(substr: str, s: str) -> str:
    """Remove every ``substr`` but the first."""
    head, found, tail = s.partition(substr)
    return head + found + tail.replace(substr, "") if found else s


def remove_repeating_from_task(task_name: str, s: str) -> str:
    """Keep the module of ``task_name`` where it is first, and drop it everywhere after."""
    module = task_name.rpartition(".")[0] + "."
    return remove_repeating(module, s)


class WhateverIO(StringIO):
    """A text buffer that takes bytes too."""

    def __init__(self, v: str | bytes | None = None, *a: Any, **kw: Any) -> None:
        super().__init__(v.decode() if isinstance(v, bytes) else v, *a, **kw)

    def write(self, data: str | bytes) -> int:
        return super().write(data.decode() if isinstance(data, bytes) else data)
