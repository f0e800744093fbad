"""Every fault scenario in its short form; and each again without its protection, when it has to fail."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import table  # noqa: F401  # enters all scenarios
from scenario import SCENARIOS, Skipped, run

#: Printed with every failure; set it to play the same dice again.
SEED = int(os.environ.get("FAULT_SEED") or random.randrange(1_000_000))

SERVERS = {"redis": "redis-server", "rabbitmq": "rabbitmqctl"}


def play(id: str, unprotected: bool) -> None:
    entry = SCENARIOS[id]
    if shutil.which(SERVERS[entry.broker]) is None:
        message = f"{SERVERS[entry.broker]} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    try:
        run(id, SEED, entry.short / 2 if unprotected else entry.short, unprotected)
    except Skipped as reason:
        pytest.skip(str(reason))


def entries(only_with_switch: bool = False) -> list[object]:
    return [
        pytest.param(id, marks=[getattr(pytest.mark, entry.broker), pytest.mark.timeout(120)])
        for id, entry in sorted(SCENARIOS.items())
        if entry.unprotected or not only_with_switch
    ]


@pytest.mark.parametrize("id", entries())
def test_the_invariants_hold(id):
    play(id, unprotected=False)


@pytest.mark.parametrize("id", entries(only_with_switch=True))
def test_they_do_not_hold_without_the_protection(id):
    with pytest.raises((AssertionError, TimeoutError)):
        play(id, unprotected=True)
