"""Errors on their way out of a child."""

from __future__ import annotations

import pickle

from billiard.einfo import ExceptionInfo

from celery.concurrency.base import exception_info
from celery.utils.saferepr import saferepr

__all__ = ("pickled",)


def pickled(einfo: ExceptionInfo) -> bytes:
    """Return the error as a pickle, or, where its exception resists, one that says as much as can be said."""
    try:
        data = pickle.dumps(einfo)
        pickle.loads(data)  # some exceptions can be written but not read back
        return data
    except Exception:
        substitute = exception_info(RuntimeError(saferepr(einfo.exception)))
        substitute.traceback = einfo.traceback
        return pickle.dumps(substitute)
