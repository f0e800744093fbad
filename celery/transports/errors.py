"""Errors that are the same for all brokers of ours."""

from __future__ import annotations

from kombu.exceptions import OperationalError

__all__ = ("MessageTooLarge",)


class MessageTooLarge(OperationalError, ValueError):
    """A message is over ``broker_transport_options['max_message_bytes']``; it was not sent."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"The message has {size:,} bytes; at most {limit:,} are allowed "
            "(broker_transport_options['max_message_bytes']). Store the data elsewhere and send a reference."
        )
        self.size = size
        self.limit = limit
