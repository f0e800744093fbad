"""What all handles on results share."""

from __future__ import annotations

from typing import Any

__all__ = ("ResultBase",)


class ResultBase:
    """Base of all results."""

    #: The result of the task before this one, in a chain.
    parent: Any = None
