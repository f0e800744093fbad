"""The table of canvases as a module, and servers to run it on."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack, contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

OUTCOMES = Path(__file__).parents[2] / "facts" / "canvas" / "outcomes.py"
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")


def load(path):
    """Return the program at ``path`` as a module."""
    spec = spec_from_file_location(f"canvas_{path.stem}", path)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


outcomes = load(OUTCOMES)


@contextmanager
def places(way):
    """Give the URLs of Redis and of a virtual host of our own on RabbitMQ."""
    with ExitStack() as stack:
        amqp = AMQP
        if "rabbitmq" in way:
            if not shutil.which("rabbitmqctl"):
                (pytest.fail if os.environ.get("CI") else pytest.skip)("rabbitmqctl is not installed")
            amqp = stack.enter_context(outcomes.virtual_host(AMQP))
        yield f"{REDIS}/9", amqp
