"""The system we run on: its name, exit codes and errors."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EX_OK = getattr(os, "EX_OK", 0)
EX_FAILURE = 1
EX_UNAVAILABLE = getattr(os, "EX_UNAVAILABLE", 69)
EX_USAGE = getattr(os, "EX_USAGE", 64)
EX_CANTCREAT = getattr(os, "EX_CANTCREAT", 73)

SYSTEM = os.uname().sysname if hasattr(os, "uname") else "Windows"
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"


def pyimplementation() -> str:
    """Return the name of the Python that runs us: ``CPython``, ``PyPy 7.3.11``."""
    import platform

    name = platform.python_implementation()
    if name == "PyPy":  # pragma: no cover
        version = sys.pypy_version_info  # type: ignore[attr-defined]  # there on PyPy
        return f"{name} {version.major}.{version.minor}.{version.micro}"
    return name


def get_errno_name(n: Any) -> int:
    """Return the number of an error given by name or number."""
    return getattr(errno, n) if isinstance(n, str) else n  # type: ignore[no-any-return]


@contextmanager
def ignore_errno(*errnos: int | str, **kwargs: Any) -> Iterator[None]:
    """Pass over errors of the system with these numbers or names; ``types`` are the exceptions that are looked at."""
    types = kwargs.get("types") or (OSError,)
    numbers = [get_errno_name(number) for number in errnos]
    try:
        yield
    except types as error:
        if getattr(error, "errno", None) not in numbers:
            raise
