"""Colours on terminals."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ("colored",)

BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE = range(8)
OP_SEQ = "\033[%dm"
RESET_SEQ = "\033[0m"
COLOR_SEQ = "\033[1;%dm"

_BOLD_COLOR_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def fg(s: int) -> str:
    """Return the sequence for bold text in colour ``s``."""
    return COLOR_SEQ % s


class colored:
    """Text with colours; several can be put together with ``+`` or nested.

    ``colored().red("bad ", colored().blue("sad"))``.  ``enabled=False`` gives the plain text.
    """

    def __init__(self, *s: Any, **kwargs: Any) -> None:
        self.s = s
        self.enabled: bool = not _is_without_colors() if kwargs.get("enabled") is None else kwargs["enabled"]
        self.op: str = kwargs.get("op", "")
        self.names: dict[str, Callable[..., colored]] = {name: getattr(self, name) for name in _BOLD_COLOR_NAMES}

    def _add(self, a: Any, b: Any) -> str:
        return f"{a}{b}"

    def _fold(self, format: Callable[[Any], str]) -> str:
        return "".join(format(part) for part in self.s)

    def no_color(self) -> str:
        """Return the text alone."""
        if self.s:
            return self._fold(lambda part: part.no_color() if isinstance(part, colored) else str(part))
        return ""

    def embed(self) -> str:
        """Return the text with colours but without the reset at its end."""
        prefix = ""
        if self.enabled:
            prefix = self.op
        return prefix + self._fold(str)  # a part with a colour of its own ends with a reset

    def __str__(self) -> str:
        suffix = RESET_SEQ if self.enabled and self.s else ""
        return self.embed() + suffix

    __repr__ = __str__

    def node(self, s: tuple[Any, ...], op: str) -> colored:
        """Return the parts ``s`` under the sequence ``op``."""
        return self.__class__(enabled=self.enabled, op=op, *s)  # noqa: B026

    def __add__(self, other: Any) -> str:
        return str(self) + str(other)

    def black(self, *s: Any) -> colored:
        return self.node(s, fg(30 + BLACK))

    def red(self, *s: Any) -> colored:
        return self.node(s, fg(30 + RED))

    def green(self, *s: Any) -> colored:
        return self.node(s, fg(30 + GREEN))

    def yellow(self, *s: Any) -> colored:
        return self.node(s, fg(30 + YELLOW))

    def blue(self, *s: Any) -> colored:
        return self.node(s, fg(30 + BLUE))

    def magenta(self, *s: Any) -> colored:
        return self.node(s, fg(30 + MAGENTA))

    def cyan(self, *s: Any) -> colored:
        return self.node(s, fg(30 + CYAN))

    def white(self, *s: Any) -> colored:
        return self.node(s, fg(30 + WHITE))

    def bold(self, *s: Any) -> colored:
        return self.node(s, OP_SEQ % 1)

    def bright(self, *s: Any) -> colored:
        return self.node(s, OP_SEQ % 1)

    def underline(self, *s: Any) -> colored:
        return self.node(s, OP_SEQ % 4)

    def blink(self, *s: Any) -> colored:
        return self.node(s, OP_SEQ % 5)

    def reverse(self, *s: Any) -> colored:
        return self.node(s, OP_SEQ % 7)

    def ired(self, *s: Any) -> colored:
        return self.node(s, fg(40 + RED))

    def igreen(self, *s: Any) -> colored:
        return self.node(s, fg(40 + GREEN))

    def iyellow(self, *s: Any) -> colored:
        return self.node(s, fg(40 + YELLOW))

    def iblue(self, *s: Any) -> colored:
        return self.node(s, fg(40 + BLUE))

    def imagenta(self, *s: Any) -> colored:
        return self.node(s, fg(40 + MAGENTA))

    def icyan(self, *s: Any) -> colored:
        return self.node(s, fg(40 + CYAN))

    def iwhite(self, *s: Any) -> colored:
        return self.node(s, fg(40 + WHITE))

    def reset(self, *s: Any) -> colored:
        return self.node(s or ("",), RESET_SEQ)


def _is_without_colors() -> bool:
    return sys.platform == "win32" and not os.environ.get("ANSICON")


def supports_images() -> bool:
    """Say whether the terminal shows pictures (iTerm2 does)."""
    try:
        return sys.stdin.isatty() and bool(os.environ.get("ITERM_PROFILE"))
    except AttributeError:  # no stdin
        return False


def imgcat(path: str, inline: int = 1, preserve_aspect_ratio: int = 0, **kwargs: Any) -> str:
    """Return the sequence that shows the picture at ``path``."""
    from base64 import b64encode

    with open(path, "rb") as picture:
        data = b64encode(picture.read()).decode()
    options = {"inline": inline, "preserveAspectRatio": preserve_aspect_ratio, **kwargs}
    shown = ";".join(f"{name}={value}" for name, value in options.items())
    before, after = ("\033Ptmux;\033", "\a\033\\") if os.environ.get("TERM", "").startswith("screen") else ("", "\a")
    return f"\n{before}\033]1337;File={shown}:{data}{after}\n"
