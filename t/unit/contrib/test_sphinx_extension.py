"""The Sphinx extension, by building real pages."""

from __future__ import annotations

import io
import sys

import pytest

pytest.importorskip("sphinx", reason="needs Sphinx")

TASKS = '''
"""Module text."""
from celery import Celery, shared_task

app = Celery("documented", broker="memory://", set_as_current=False)


@app.task
def add(x, y: int = 3):
    """Add them."""


@app.task(bind=True)
def bound(self, a, *, b=None):
    """Bound text."""


@shared_task
def shared(a):
    """Shared text."""


@app.task
def silent(z): ...


def plain(q):
    """Plain text."""
'''

IMPORTING = '''
"""Another module."""
from documented_tasks import add, app


@app.task
def own():
    """Own text."""
'''

PAGE = """
Title
=====

.. automodule:: documented_tasks
   :members:

.. automodule:: importing_tasks
   :members:

.. autotask:: documented_tasks.add
   :no-index:

.. task:: by.hand(a, b)

   Hand made.  See :task:`documented_tasks.bound` and :func:`documented_tasks.plain`.
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """``build(**settings)``: the page as text, and what Sphinx warned of."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    source = tmp_path / "source"
    source.mkdir()
    (source / "documented_tasks.py").write_text(TASKS)
    (source / "importing_tasks.py").write_text(IMPORTING)
    (source / "index.rst").write_text(PAGE)
    monkeypatch.syspath_prepend(str(source))

    def build(builder="text", **settings):
        warnings = io.StringIO()
        config = {"project": "p", "extensions": ["sphinx.ext.autodoc", "celery.contrib.sphinx"], **settings}
        with patch_docutils(), docutils_namespace():
            sphinx = Sphinx(
                str(source),
                None,
                str(tmp_path / "out"),
                str(tmp_path / "trees"),
                builder,
                confoverrides=config,
                status=None,
                warning=warnings,
                freshenv=True,
            )
            sphinx.build()
        ending = "txt" if builder == "text" else "html"
        return (tmp_path / "out" / f"index.{ending}").read_text(), warnings.getvalue()

    yield build
    for name in ("documented_tasks", "importing_tasks"):
        sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore")  # Sphinx's own
def test_tasks_are_shown_as_the_functions_they_are(build):
    page, warnings = build()

    assert not warnings
    assert page.count("(task)documented_tasks.add(x, y: int = 3)\n\n   Add them.") == 2
    assert "(task)documented_tasks.bound(a, *, b=None)\n\n   Bound text." in page
    assert "(task)documented_tasks.shared(a)\n\n   Shared text." in page
    assert "(task)documented_tasks.silent(z)\n\n" in page
    assert "\ndocumented_tasks.plain(q)\n\n   Plain text." in page
    assert "(task)by.hand(a, b)\n\n   Hand made." in page
    assert "Proxy" not in page


@pytest.mark.filterwarnings("ignore")
def test_a_module_shows_its_own_tasks_and_no_imported_ones(build):
    page, _ = build()

    assert "(task)importing_tasks.own()\n\n   Own text." in page
    assert "importing_tasks.add" not in page


@pytest.mark.filterwarnings("ignore")
def test_the_prefix_is_a_setting(build):
    page, _ = build(celery_task_prefix="job ")

    assert "\njob documented_tasks.add(x, y: int = 3)" in page


@pytest.mark.filterwarnings("ignore")
def test_pages_of_html_mark_tasks_and_name_them(build):
    page, _ = build("html")

    assert page.count('<dl class="py task">') == 7
    assert 'id="documented_tasks.bound"' in page
    assert "documented_tasks.bound()" in page
