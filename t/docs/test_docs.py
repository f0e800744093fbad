"""Every example of the documentation runs and prints what its page shows, and the site builds without a warning."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(page for kind in ("tutorial", "how-to", "explanation") for page in (ROOT / "docs" / kind).glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_the_examples_of_a_page_run(page, tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "DJANGO", "PYTEST"))}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "t/docs/page.py"), str(page)],
        cwd=tmp_path,
        env={**environ, "C_FORCE_ROOT": "1", "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_builds_without_warnings(tmp_path):
    pytest.importorskip("furo")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-b",
            "html",
            str(ROOT / "docs"),
            str(tmp_path / "site"),
        ],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    for page in ("index.html", "reference/configuration.html", "reference/command-line.html", "how-to/swap.html"):
        assert (tmp_path / "site" / page).exists()
    settings, commands, modules = (
        text_of(tmp_path / "site/reference" / page) for page in ("configuration.html", "command-line.html", "api.html")
    )
    assert "default 'celery.beat:PersistentScheduler', old name CELERYBEAT_SCHEDULER." in settings
    assert "-c, --concurrency <concurrency>" in commands
    assert "celery -A proj worker --autoscale=10,2" in commands
    assert ".. option::" not in commands
    assert "assert_enqueued(" in modules


def text_of(page):
    """Return what a reader sees of a page, with single blanks."""
    return " ".join(html.unescape(re.sub("<[^>]+>", "", page.read_text())).split())
