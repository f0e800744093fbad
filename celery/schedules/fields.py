"""From a field of a crontab to the numbers that it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from celery.utils.time import WEEKDAYS, YEARMONTHS

__all__ = ("ParseException", "crontab_parser", "numbers_in")

# `calendar` has these in the language of the machine
_DAYS = {
    "sunday": WEEKDAYS["sun"],
    "monday": WEEKDAYS["mon"],
    "tuesday": WEEKDAYS["tue"],
    "wednesday": WEEKDAYS["wed"],
    "thursday": WEEKDAYS["thu"],
    "friday": WEEKDAYS["fri"],
    "saturday": WEEKDAYS["sat"],
}
_MONTHS = {
    "january": YEARMONTHS["jan"],
    "february": YEARMONTHS["feb"],
    "march": YEARMONTHS["mar"],
    "april": YEARMONTHS["apr"],
    "may": YEARMONTHS["may"],
    "june": YEARMONTHS["jun"],
    "july": YEARMONTHS["jul"],
    "august": YEARMONTHS["aug"],
    "september": YEARMONTHS["sep"],
    "october": YEARMONTHS["oct"],
    "november": YEARMONTHS["nov"],
    "december": YEARMONTHS["dec"],
}


class ParseException(Exception):
    """A crontab expression that is not one."""


class crontab_parser:
    """Turns one field of a crontab into the set of numbers it names, from ``min_`` up, ``max_`` of them.

    Known are ``*``, ``*/3``, ``5``, ``1-5``, ``1-5/2``, names of days and months, and lists of these with commas.  A
    range whose end comes before its start goes around: ``fri-mon``.
    """

    ParseException = ParseException

    #: how many numbers there are, and the first of them
    max_: int
    min_: int
    #: forms of a part, and what makes its groups numbers
    pats: tuple[tuple[re.Pattern[str], Callable[..., list[int]]], ...]

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_
        self.pats = (
            (re.compile(r"(\w+)-(\w+)/(\w+)"), self._range_with_steps),
            (re.compile(r"(\w+)-(\w+)"), self._range),
            (re.compile(r"\*/(\w+)"), self._all_with_steps),
            (re.compile(r"\*"), self._all),
            (re.compile(r"(\w+)"), self._one),
        )

    def parse(self, spec: str) -> set[int]:
        """Return the numbers.

        Raises:
            ParseException: a part is empty, has no step after its slash, or is negative.
            ValueError: a part is out of range, or nothing that is known.
        """
        return {number for part in spec.split(",") for number in self._part(part.strip(), spec)}

    def _part(self, part: str, spec: str) -> list[int]:
        if not part:
            raise ParseException(f"empty part in {spec!r}")
        if part.startswith("-"):
            raise ParseException(f"negative numbers are not supported: {part!r}")
        if part.endswith("/"):
            raise ParseException(f"a step is missing after the slash of {part!r}")
        for pattern, numbers in self.pats:
            if match := pattern.fullmatch(part):
                return numbers(*match.groups())
        raise ValueError(f"{part!r} is no crontab expression: expected one of *, */3, 5, 1-5, 1-5/2, mon-fri")

    def _one(self, text: str) -> list[int]:
        return [self._number(text)]

    def _all(self) -> list[int]:
        return list(range(self.min_, self.min_ + self.max_))

    def _all_with_steps(self, step: str) -> list[int]:
        return self._all()[:: self._step(step)]

    def _range(self, first: str, last: str) -> list[int]:
        start, end = self._number(first), self._number(last)
        if start <= end:
            return list(range(start, end + 1))
        return list(range(start, self.min_ + self.max_)) + list(range(self.min_, end + 1))

    def _range_with_steps(self, first: str, last: str, step: str) -> list[int]:
        return self._range(first, last)[:: self._step(step)]

    def _step(self, text: str) -> int:
        if not text.isdecimal() or not int(text):
            raise ValueError(f"the step {text!r} is not a number above zero")
        return int(text)

    def _number(self, text: str) -> int:
        number = self._named(text) if not text.isdecimal() else int(text)
        last = self.min_ + self.max_ - 1
        if number > last:
            raise ValueError(f"Invalid end range: {number} > {last}.")
        if number < self.min_:
            raise ValueError(f"Invalid beginning range: {number} < {self.min_}.")
        return number

    def _named(self, text: str) -> int:
        """Return the number of a day or month, by its name or how that begins; from three letters on."""
        names = {7: _DAYS, 12: _MONTHS}.get(self.max_, {})
        for name, number in names.items():
            if len(text) >= 3 and name.startswith(text.lower()):
                return number
        near = get_close_matches(text.lower(), names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        kind = "neither a number nor the name of a day or month" if names else "no number"
        raise ValueError(f"{text!r} is {kind}{hint}")


def numbers_in(field: str, spec: Any, max_: int, min_: int = 0) -> set[int]:
    """Return the numbers that a user gave for a field of a crontab: a number, an expression or some numbers."""
    if isinstance(spec, str):
        try:
            return crontab_parser(max_, min_).parse(spec)
        except (ParseException, ValueError) as error:
            raise type(error)(f"crontab {field} ({min_} to {min_ + max_ - 1}): {error}") from None
    if isinstance(spec, int):
        numbers = {spec}
    elif isinstance(spec, Iterable):
        numbers = set(spec)
    else:
        raise TypeError(f"{field} must be a number, a string or an iterable of numbers, not {type(spec)!r}")
    for number in numbers:
        if not isinstance(number, int):
            raise TypeError(f"{field} must be made of numbers; {number!r} is none")
        if not min_ <= number < min_ + max_:
            raise ValueError(f"Invalid crontab pattern: {field} is {min_} to {min_ + max_ - 1}, but {number} was given")
    if not numbers:
        raise ValueError(f"{field} names nothing, so this crontab would never come")
    return numbers
