"""Signals, and those who listen."""

from .signal import Signal

__all__ = ("Signal",)
