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


#: A fault that strikes at random may miss at first; each attempt without the protection is twice as long as the one before.
ATTEMPTS = 4


def play(id: str, attempt: int | None = None) -> None:
    """Play a scenario at its short scale; an ``attempt``, from 0 on, is one without the protection."""
    entry = SCENARIOS[id]
    if shutil.which(SERVERS[entry.broker]) is None:
        message = f"{SERVERS[entry.broker]} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    try:
        if attempt is None:
            run(id, SEED, entry.short, False)
        else:
            run(id, SEED + attempt, entry.short / 2 * 2**attempt, True)
    except Skipped as reason:
        pytest.skip(str(reason))


def entries(only_with_switch: bool = False) -> list[object]:
    seconds = 120 * ATTEMPTS if only_with_switch else 120
    return [
        pytest.param(id, marks=[getattr(pytest.mark, entry.broker), pytest.mark.timeout(seconds)])
        for id, entry in sorted(SCENARIOS.items())
        if not entry.long_only and (entry.unprotected or not only_with_switch)
    ]


@pytest.mark.parametrize("id", entries())
def test_the_invariants_hold(id):
    play(id)


@pytest.mark.parametrize("id", entries(only_with_switch=True))
def test_they_do_not_hold_without_the_protection(id):
    for attempt in range(ATTEMPTS):
        try:
            play(id, attempt)
        except (AssertionError, TimeoutError):
            return
    pytest.fail(f"{id} held {ATTEMPTS} times without its protection")
