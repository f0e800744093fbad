"""By the sun, at a place on earth."""

from __future__ import annotations

from datetime import datetime, timedelta
from datetime import timezone as _fixed
from typing import Any, NamedTuple

from celery.exceptions import ImproperlyConfigured
from celery.schedules.base import BaseSchedule, schedstate

__all__ = ("solar",)


class _Event(NamedTuple):
    method: str
    horizon: str
    use_center: bool


#: the horizons of twilight are those of the centre of the sun; at sunrise its upper edge is seen, with refraction
SOLAR_EVENTS = {
    "dawn_astronomical": _Event("next_rising", "-18", True),
    "dawn_civil": _Event("next_rising", "-6", True),
    "dawn_nautical": _Event("next_rising", "-12", True),
    "dusk_astronomical": _Event("next_setting", "-18", True),
    "dusk_civil": _Event("next_setting", "-6", True),
    "dusk_nautical": _Event("next_setting", "-12", True),
    "solar_noon": _Event("next_transit", "0", False),
    "sunrise": _Event("next_rising", "-0:34", False),
    "sunset": _Event("next_setting", "-0:34", False),
}


class solar(BaseSchedule):
    """Due at an event of the sun, such as ``sunset``, at a place given in degrees; north and east are positive.

    Where the sun does not set (or rise) for months, the next time it does is meant.  Needs the library ``ephem``.
    """

    max_search_days: int = 366

    #: the library, and what it computes with
    ephem: Any
    cal: Any
    event: str
    lat: float
    lon: float
    method: str
    #: whether the centre of the sun counts, and not its upper edge
    use_center: bool

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            import ephem
        except ImportError:
            raise ImproperlyConfigured("Solar schedules need the library ephem: pip install celery[solar]") from None
        if event not in SOLAR_EVENTS:
            raise ValueError(f'Argument event "{event}" is invalid, must be one of {", ".join(SOLAR_EVENTS)}.')
        if not -90 <= lat <= 90:
            raise ValueError(f"Argument latitude {lat} is invalid, must be between -90 and 90.")
        if not -180 <= lon <= 180:
            raise ValueError(f"Argument longitude {lon} is invalid, must be between -180 and 180.")
        super().__init__(**kwargs)
        self.ephem = ephem
        self.event = event
        self.lat = lat
        self.lon = lon
        self.method, horizon, self.use_center = SOLAR_EVENTS[event]
        self.cal = ephem.Observer()
        self.cal.lat = str(lat)
        self.cal.lon = str(lon)
        self.cal.elev = 0
        self.cal.pressure = 0  # the horizon of sunrise holds the refraction already
        self.cal.horizon = horizon

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        last_run_at = self.maybe_make_aware(last_run_at).astimezone(_fixed.utc)
        return self._next_after(last_run_at) - self.maybe_make_aware(self.now())

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        seconds = self.remaining_estimate(last_run_at).total_seconds()
        if seconds > 0:
            return schedstate(False, seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    def _next_after(self, start: datetime) -> datetime:
        options = {} if self.method == "next_transit" else {"use_center": self.use_center}
        for quarters in range(self.max_search_days * 4 + 1):  # near the pole, day breaks within a few hours of one day
            self.cal.date = self.ephem.Date(start.replace(tzinfo=None) + timedelta(hours=6 * quarters))
            try:
                event = getattr(self.cal, self.method)(self.ephem.Sun(), **options)
            except self.ephem.CircumpolarError:
                continue
            return event.datetime().replace(tzinfo=_fixed.utc)  # type: ignore[no-any-return]
        raise RuntimeError(
            f"there is no {self.event} at latitude {self.lat}, longitude {self.lon} in the {self.max_search_days} days "
            f"after {start.isoformat()}"
        )

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.event, self.lat, self.lon)
