"""Failpoints do nothing, unless the environment asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest


def run(failpoints, code):
    env = dict(os.environ, CELERIAC_FAILPOINTS=failpoints)
    program = f"from celery.utils.failpoints import *; import time\n{code}"
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("failpoints", "code", "status", "output"),
    [
        ("", "failpoint('a'); print('on')", 0, "on\n"),
        ("b=kill", "failpoint('a'); print('on')", 0, "on\n"),
        ("a=kill", "failpoint('a'); print('on')", -signal.SIGKILL, ""),
        ("a=exit:7", "failpoint('a'); print('on')", 7, ""),
        ("a=exit:7,skip=2", "[failpoint('a') for _ in range(2)]; print('on', flush=True); failpoint('a')", 7, "on\n"),
        ("a=exit:7,p=0", "[failpoint('a') for _ in range(99)]; print('on')", 0, "on\n"),
        ("a=off", "print(is_active('a'), is_active('b')); failpoint('a')", 0, "True False\n"),
        ("x=off", "activate('a=exit:3'); failpoint('a')", 3, ""),
    ],
)
def test_a_failpoint_does_what_the_environment_says(failpoints, code, status, output):
    done = run(failpoints, code)
    assert (done.returncode, done.stdout) == (status, output), done.stderr


def test_raising_a_limited_number_of_times():
    code = """
hits = 0
for _ in range(5):
    try:
        failpoint('a')
    except FailpointError:
        hits += 1
print(hits)"""
    assert run("a=raise,count=2", code).stdout == "2\n"


def test_the_same_seed_throws_the_same_dice():
    code = "print([is_active('a')] and [_hit() for _ in range(20)])"
    prelude = """
def _hit():
    try:
        failpoint('a')
    except FailpointError:
        return 1
    return 0
"""
    outputs = {run("a=raise,p=0.5,seed=3", prelude + code).stdout for _ in range(2)}
    assert len(outputs) == 1
    assert "0" in (text := outputs.pop())
    assert "1" in text


def test_an_unknown_action_is_refused_at_import():
    assert "unknown action 'explode'" in run("a=explode", "pass").stderr


def test_once_means_one_process(tmp_path):
    armed = f"a=exit:7,once={tmp_path}/done"
    assert [run(armed, "failpoint('a')").returncode for _ in range(3)] == [7, 0, 0]


def test_a_delay_comes_before_the_action():
    code = "began = time.monotonic()\ntry:\n    failpoint('a')\nexcept FailpointError:\n    print(time.monotonic() - began)"
    assert float(run("a=raise,delay=0.05", code).stdout) >= 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_children_and_parents_can_be_killed():
    code = """
import os, signal
child = os.fork()
if not child:
    time.sleep(30)
failpoint('a')
print(os.waitpid(child, 0)[1])"""
    assert run("a=killchildren", code).stdout == f"{signal.SIGKILL:d}\n"
    orphan = """
import os
if not os.fork():
    failpoint('a')
time.sleep(30)"""
    assert run("a=killparent", orphan).returncode == -signal.SIGKILL
