"""Cameras: take a picture of the cluster's state every so many seconds, to store or show it.

Events go into a `State` as they come; a timer calls the camera, which sees the state stand still meanwhile.
"""

from __future__ import annotations

from typing import Any

from kombu.utils.limits import TokenBucket

from celery import platforms
from celery._state import app_or_default
from celery.events.capture import capture_for_ever
from celery.utils.dispatch import Signal
from celery.utils.imports import instantiate
from celery.utils.log import get_logger
from celery.utils.time import rate
from celery.utils.timer2 import Timer

__all__ = ("Polaroid", "evcam")

logger = get_logger("celery.evcam")


class Polaroid:
    """A camera; subclasses say in ``on_shutter(state)`` what a picture is.

    ``freq`` is the time between pictures in seconds, ``maxrate`` the most pictures in a time (``"10/m"``),
    ``cleanup_freq`` the seconds between two calls of ``on_cleanup``.
    """

    timer: Any = None
    shutter_signal = Signal(name="shutter_signal", providing_args={"state"})
    cleanup_signal = Signal(name="cleanup_signal", providing_args=set())

    #: Forget after each picture what has ended.
    clear_after = False

    _shutter_entry: Any = None
    _cleanup_entry: Any = None

    def __init__(
        self,
        state: Any,
        freq: float = 1.0,
        maxrate: Any = None,
        cleanup_freq: float = 3600.0,
        timer: Any = None,
        app: Any = None,
    ) -> None:
        self.app = app_or_default(app)
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.timer = timer or self.timer or Timer()
        self.logger = logger
        self.maxrate = TokenBucket(rate(maxrate)) if maxrate else None

    def install(self) -> None:
        """Begin to take pictures."""
        self._shutter_entry = self.timer.call_repeatedly(self.freq, self.capture)
        self._cleanup_entry = self.timer.call_repeatedly(self.cleanup_freq, self.cleanup)

    def on_shutter(self, state: Any) -> None:
        """Take a picture of ``state``; for subclasses."""

    def on_cleanup(self) -> None:
        """Throw away what is old; for subclasses."""

    def cleanup(self) -> None:
        """Let receivers of ``cleanup_signal``, and `on_cleanup`, throw away what is old."""
        logger.debug("Cleanup: Running...")
        self.cleanup_signal.send(sender=self.state)
        self.on_cleanup()

    def shutter(self) -> None:
        """Take a picture, unless there were too many."""
        if self.maxrate is None or self.maxrate.can_consume():
            logger.debug("Shutter: %s", self.state)
            self.shutter_signal.send(sender=self.state)
            self.on_shutter(self.state)

    def capture(self) -> None:
        """Take a picture while no event changes the state."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def cancel(self) -> None:
        """Take no more pictures."""
        for entry in (self._shutter_entry, self._cleanup_entry):
            if entry is not None:
                entry.cancel()
        self._shutter_entry = self._cleanup_entry = None

    def __enter__(self) -> Polaroid:
        self.install()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.cancel()


def evcam(
    camera: Any,
    freq: float = 1.0,
    maxrate: Any = None,
    loglevel: Any = 0,
    logfile: str | None = None,
    pidfile: str | None = None,
    timer: Any = None,
    app: Any = None,
    **kwargs: Any,
) -> None:
    """Run ``camera``, a class or the path of one, every ``freq`` seconds until interrupted.

    ``maxrate`` bounds how many pictures are taken in a time: ``"10/m"``.
    """
    app = app_or_default(app)
    if pidfile:
        platforms.create_pidlock(pidfile)
    app.log.setup_logging_subsystem(loglevel, logfile)
    print(f"-> evcam: Taking snapshots with {camera} (every {freq} secs.)", flush=True)
    state = app.events.State()
    with instantiate(camera, state, app=app, freq=freq, maxrate=maxrate, timer=timer):
        capture_for_ever(app, {"*": state.event}, logger.error)
