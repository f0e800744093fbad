"""Signals of the system, by name."""

from __future__ import annotations

import math
import signal as _signal
from collections.abc import Mapping
from typing import Any

from .system import SYSTEM


class Signals:
    """Signal handlers by name: ``signals["INT"] = handler``, with or without ``SIG``.

    Names that this system does not have are passed over, as are handlers set from another thread than the main one.
    """

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def arm_alarm(self, seconds: float) -> None:
        """Have SIGALRM sent in that many seconds."""
        if hasattr(_signal, "setitimer"):
            _signal.setitimer(_signal.ITIMER_REAL, seconds)
        else:  # pragma: no cover
            _signal.alarm(math.ceil(seconds))

    def reset_alarm(self) -> int:
        """Call off the alarm; return how many seconds were left."""
        return _signal.alarm(0)

    def supported(self, name: str) -> bool:
        """Say whether this system has the signal."""
        try:
            self.signum(name)
        except AttributeError:
            return False
        return True

    def signum(self, name: Any) -> int:
        """Return the number of a signal.

        Raises:
            AttributeError: this system has none of that name.
            TypeError: it is no name in capitals.
        """
        if isinstance(name, int):
            return name
        if not isinstance(name, str) or not name.isupper():
            raise TypeError("signal name must be uppercase string.")
        number: int = getattr(_signal, name if name.startswith("SIG") else "SIG" + name)
        return number

    def reset(self, *signal_names: str) -> None:
        """Set the system's handlers."""
        self.update((name, self.default) for name in signal_names)

    def ignore(self, *names: str) -> None:
        self.update((name, self.ignored) for name in names)

    def __getitem__(self, name: str) -> Any:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: str, handler: Any) -> None:
        try:
            _signal.signal(self.signum(name), handler)
        except (AttributeError, ValueError):  # not on this system, or not in this thread
            pass

    def update(self, _d_: Any = None, **sigmap: Any) -> None:
        """Set handlers from a mapping, pairs, or keywords."""
        for name, handler in dict(_d_ or {}, **sigmap).items():
            self[name] = handler


signals = Signals()
get_signal = signals.signum
install_signal_handler = signals.__setitem__
reset_signal = signals.reset
ignore_signal = signals.ignore

#: signal → name
SIGMAP: Mapping[Any, str] = {number: number.name for number in _signal.Signals}


def signal_name(signum: int) -> str:
    """Return ``"KILL"`` for 9."""
    return SIGMAP[signum].removeprefix("SIG")


def set_pdeathsig(name: str) -> None:
    """Have the system send us this signal when our parent dies; Linux only, nothing happens elsewhere."""
    try:
        number = signals.signum(name)
    except (AttributeError, TypeError):
        return
    if SYSTEM != "Linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(number), 0, 0, 0)
    except (OSError, AttributeError):  # a C library without it
        pass
