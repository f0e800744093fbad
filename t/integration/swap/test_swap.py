"""Programs as users write them print what they print with Celery 5.7.0, whose output is recorded in ``expected/``."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + "/8"

_spec = importlib.util.spec_from_file_location("swap_kit", HERE / "swap_kit.py")
swap_kit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(swap_kit)


@pytest.fixture
def broker():
    client = pytest.importorskip("redis").Redis.from_url(REDIS)
    client.flushdb()
    yield REDIS
    client.flushdb()
    client.close()


@pytest.mark.redis
@pytest.mark.parametrize("name", swap_kit.NAMES)
def test_a_program_prints_what_it_printed_before_the_swap(name, broker, tmp_path):
    expected = (HERE / "expected" / f"{name}.txt").read_text()
    printed = swap_kit.run(name, sys.executable, broker, tmp_path)
    assert printed.splitlines() == expected.splitlines(), (tmp_path / f"{name}.log").read_text()[-4000:]
