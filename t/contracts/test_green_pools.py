"""The contract suite once more, in processes patched by gevent and by eventlet."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

PATCHES = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}


PROGRAM = """
{patch}
import sys, pytest
tests = "test_pool_contract.py"
sys.exit(pytest.main([tests, "-q", "-p", "no:cacheprovider", "-W", "ignore", "-k", {choice!r}]))
"""


@pytest.fixture(params=list(PATCHES))
def library(request) -> str:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=HERE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_green_pool_keeps_the_contract(library):
    choice = f"[{library}] or green"
    done = run(PROGRAM.format(patch=PATCHES[library], choice=choice), TEST_GREEN_POOL=library)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout or "." * 20 in done.stdout


def test_a_green_pool_refuses_to_start_in_a_process_that_is_not_patched(library):
    done = run(f"from celery.concurrency import get_implementation\nget_implementation({library!r})(2).start()\n")

    assert done.returncode == 1
    assert f"The {library} pool needs a patched process" in done.stderr
