"""What every unit test starts from: an in-memory broker and an in-memory store with nothing in them."""

import pytest


@pytest.fixture(autouse=True)
def _empty_memory():
    """Forget what a test left in kombu's in-memory transport and in our store; both belong to the whole process."""
    yield
    from kombu.transport.memory import Channel, Transport

    from celery.backends.cache import DummyClient

    DummyClient().cache.clear()
    Channel.queues.clear()
    Channel.events.clear()
    Transport.global_state.clear()
