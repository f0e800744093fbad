"""What every unit test starts from: an empty in-memory broker."""

import pytest


@pytest.fixture(autouse=True)
def _empty_memory_broker():
    """Forget what an earlier test left in kombu's in-memory transport; its queues belong to the whole process."""
    yield
    from kombu.transport.memory import Channel, Transport

    Channel.queues.clear()
    Channel.events.clear()
    Transport.global_state.clear()
