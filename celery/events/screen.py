"""A terminal that is taken over whole: sizes, colours, text that fits, questions and pages."""

from __future__ import annotations

import curses
import locale
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from celery import states
from celery.events import display

__all__ = ("Screen",)

#: Task states by colour.
COLORS = {
    states.SUCCESS: curses.COLOR_GREEN,
    states.FAILURE: curses.COLOR_RED,
    states.STARTED: curses.COLOR_CYAN,
    states.RECEIVED: curses.COLOR_BLUE,
    states.RETRY: curses.COLOR_YELLOW,
    states.REVOKED: curses.COLOR_MAGENTA,
    states.REJECTED: curses.COLOR_MAGENTA,
}

#: Milliseconds for which a key is waited for; as often the screen follows what happens.
KEY_WAIT = 200

ESCAPE = 27


class Screen:
    """The terminal, between `init_screen` and `resetscreen`."""

    win: Any = None
    #: Milliseconds that `nap` takes.
    screen_delay = 10

    def __init__(self) -> None:
        self.lock = threading.RLock()
        #: Task state → attributes of curses.
        self.state_colors: dict[str, int] = {}
        self.has_unicode = True

    @property
    def screen_width(self) -> int:
        return int(self.win.getmaxyx()[1])

    @property
    def screen_height(self) -> int:
        return int(self.win.getmaxyx()[0])

    @property
    def display_width(self) -> int:
        return self.screen_width

    def init_screen(self) -> None:
        """Take the terminal over."""
        with self.lock:
            locale.setlocale(locale.LC_ALL, "")
            self.has_unicode = "UTF" in (locale.nl_langinfo(locale.CODESET) or "").upper()
            # So many ms Esc waits for the rest of a key; a whole second is usual.
            os.environ.setdefault("ESCDELAY", "100")
            self.win = curses.initscr()
            curses.noecho()
            curses.cbreak()
            self.win.keypad(True)
            self.win.timeout(KEY_WAIT)
            try:
                curses.curs_set(0)
            except curses.error:  # a terminal that cannot hide its cursor
                pass
            self._init_colors()

    def _init_colors(self) -> None:
        self.state_colors = dict.fromkeys(COLORS, curses.A_NORMAL)
        if not curses.has_colors() or os.environ.get("NO_COLOR"):
            return
        curses.start_color()
        try:
            curses.use_default_colors()
            background = -1
        except curses.error:
            background = curses.COLOR_BLACK
        for number, (state, color) in enumerate(COLORS.items(), 1):
            curses.init_pair(number, color, background)
            self.state_colors[state] = curses.color_pair(number)

    def resetscreen(self) -> None:
        """Give the terminal back."""
        with self.lock:
            self.win.keypad(False)
            curses.nocbreak()
            curses.echo()
            curses.endwin()

    def nap(self) -> None:
        """Let others have the processor."""
        curses.napms(self.screen_delay)

    def safe_add_str(self, y: int, x: int, string: str, *args: Any, **kwargs: Any) -> None:
        """Write ``string`` at ``(y, x)`` as far as it fits; control characters are shown as dots."""
        height, width = self.win.getmaxyx()
        if not (0 <= y < height and 0 <= x < width):
            return
        text = "".join(character if character.isprintable() else "·" for character in string)[: width - x]
        try:
            self.win.addstr(y, x, text, *args, **kwargs)
        except (curses.error, UnicodeEncodeError):  # the last cell, or a character that the terminal does not have
            ascii_text = text.encode("ascii", "replace").decode()[: max(0, width - x - 1)]
            try:
                self.win.addstr(y, x, ascii_text, *args, **kwargs)
            except curses.error:  # it became smaller meanwhile
                pass

    # -- pages on top of the screen

    def alert(self, callback: Callable[[int], Iterable[tuple[str, str]]], title: str | None = None) -> None:
        """Show a page until a key is pressed: ``callback(width)`` gives its lines as ``(label, text)``."""
        first = 0
        while True:
            lines = list(callback(max(8, self.display_width - 14)))
            room = max(1, self.screen_height - 3)
            first = min(first, max(0, len(lines) - room))
            self._draw_page(lines[first : first + room], title or "", len(lines) > room)
            try:
                key = self.win.get_wch()
            except curses.error:
                continue
            if key in ("j", curses.KEY_DOWN):
                first += 1
            elif key in ("k", curses.KEY_UP):
                first = max(0, first - 1)
            elif key in (" ", curses.KEY_NPAGE):
                first += room
            elif key == curses.KEY_PPAGE:
                first = max(0, first - room)
            elif key == curses.KEY_RESIZE:
                curses.update_lines_cols()
            else:
                return

    def _draw_page(self, lines: list[tuple[str, str]], title: str, is_long: bool) -> None:
        with self.lock:
            width = self.display_width
            self.win.erase()
            self.safe_add_str(0, 0, f" {title}".ljust(width), curses.A_REVERSE | curses.A_BOLD)
            for y, (label, text) in enumerate(lines, 2):
                self.safe_add_str(y, 1, label.rjust(11), curses.A_BOLD)
                color = self.state_colors.get(text, 0) if label == "state" else 0
                self.safe_add_str(y, 13, text, color)
            hint = "j k: scroll, any other key: back" if is_long else "any key: back"
            self.safe_add_str(self.screen_height - 1, 0, hint, curses.A_DIM)
            self.win.refresh()

    def _show(self, title: str, *pairs: tuple[str, str]) -> None:
        self.alert(lambda width: display.lines_of(pairs, width), title)

    def readline(self, x: int, y: int) -> str:
        """Read a line at column ``x`` of line ``y``; the escape key gives none."""
        typed = ""
        while True:
            self.safe_add_str(y, x, typed + "_ ")
            self.win.refresh()
            try:
                key = self.win.get_wch()
            except curses.error:
                continue
            if key in ("\n", "\r", curses.KEY_ENTER):
                return typed
            if key in (chr(ESCAPE), ESCAPE):
                return ""
            if key in ("\b", "\x7f", curses.KEY_BACKSPACE):
                typed = typed[:-1]
            elif isinstance(key, str) and key.isprintable():
                typed += key

    def _ask(self, question: str) -> str:
        y = self.screen_height - 1
        with self.lock:
            self.safe_add_str(y, 0, question.ljust(self.display_width), curses.A_BOLD)
            return self.readline(len(question), y)
