"""Results in a database, through SQLAlchemy: ``db+postgresql://…``, ``db+mysql://…``, ``db+sqlite:///…``."""

from __future__ import annotations

from celery.exceptions import ImproperlyConfigured

try:
    import sqlalchemy as _sqlalchemy
except ImportError:
    raise ImproperlyConfigured("The database result backend needs SQLAlchemy: pip install celery[sqlalchemy]") from None

from celery.backends.database.backend import DatabaseBackend, session_cleanup

__all__ = ("DatabaseBackend",)

for _name in (DatabaseBackend, session_cleanup):
    _name.__module__ = __name__  # pickles and reprs name the door
del _name
