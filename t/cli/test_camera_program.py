"""``celery events --camera`` as a process: who it is, and what its files allow."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

CAMERA = """
from celery.events.snapshot import Polaroid


class Camera(Polaroid):
    def on_shutter(self, state):
        open("picture", "w").close()
"""


def start(project, *options, **more):
    project.write("cam.py", CAMERA)
    words = ("-A", "proj", "events", "--camera", "cam.Camera", "-F", "0.1")
    return project.start(*words, *options, until=r"Taking snapshots", **more)


def test_its_files_allow_what_the_umask_does(project, wait_until):
    program = start(project, "--umask", "027", "-f", "cam.log")
    picture = project.path / "picture"
    wait_until(picture.exists, "a picture")
    program.send("SIGINT")
    program.end()

    assert [stat.S_IMODE(file.stat().st_mode) for file in (picture, project.path / "cam.log")] == [0o640, 0o640]


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser becomes somebody else")
def test_it_becomes_another_user_once_it_has_its_pidfile(project):
    pidfile = project.path / "private" / "cam.pid"  # where only the superuser writes
    pidfile.parent.mkdir(mode=0o755)
    program = start(project, "--uid", "nobody", "--pidfile", str(pidfile), env={"HOME": "/"})
    status = Path(f"/proc/{program.process.pid}/status").read_text()

    assert pidfile.read_text() == f"{program.process.pid}\n"
    assert re.findall(r"[UG]id:\s+(\d+)", status) == ["65534", "65534"]
    program.send("SIGINT")
    program.end()
