"""The Redis protocol without I/O; result stores speak it too, so it lives in ``celery.protocol.resp``."""

from celery.protocol.resp import PlainReader, Push, Reader, ReplyError, bulk, error_for, new_reader, pack

__all__ = ("PlainReader", "Push", "Reader", "ReplyError", "bulk", "error_for", "new_reader", "pack")
