"""Sphinx extension: tasks in documentation.

Put ``"celery.contrib.sphinx"`` among the ``extensions`` of ``conf.py``.  Then ``automodule`` shows tasks as functions,
``.. autotask:: package.module.task`` shows one, and ``.. task::`` describes one by hand; ``:task:`name``` refers to it.
The setting ``celery_task_prefix`` is what stands before the name, ``(task)`` by default.
"""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from sphinx.domains.python import PyFunction, PyXRefRole
from sphinx.ext.autodoc import FunctionDocumenter
from sphinx.util.docstrings import prepare_docstring
from sphinx.util.inspect import stringify_signature

from celery.app.task import Task

__all__ = ("TaskDirective", "TaskDocumenter", "autodoc_skip_member_handler", "setup")


def _is_task(value: Any) -> bool:
    return isinstance(value, Task) and not isinstance(value, type)


class TaskDocumenter(FunctionDocumenter):  # type: ignore[misc]  # Sphinx may not be installed where types are checked
    """Documents a task as the function that it was made of."""

    objtype = "task"
    member_order = 11

    @classmethod
    def can_document_member(cls, member: Any, membername: str, isattr: bool, parent: Any) -> bool:
        return _is_task(member)

    def format_args(self, **kwargs: Any) -> str:
        """Return the signature; a bound task's own object is no argument of it."""
        try:
            signature = inspect.signature(self.object.run)
        except (TypeError, ValueError):  # written in C
            return "(*args, **kwargs)"
        text: str = stringify_signature(signature, **kwargs)
        return text

    def get_doc(self) -> list[list[str]] | None:
        """Return the function's docstring; that of the class `Task` says nothing about it."""
        text = inspect.getdoc(self.object.run)
        return [prepare_docstring(text)] if text else []

    def document_members(self, all_members: bool = False) -> None:
        """A task has no members to show."""

    def check_module(self) -> bool:
        """Return whether the task is of the module that is documented: not one that it imported."""
        function = inspect.unwrap(self.object.run)
        return bool(self.options.imported_members) or getattr(function, "__module__", None) == self.modname


class TaskDirective(PyFunction):  # type: ignore[misc]
    """``.. task::``, a function with a prefix."""

    def get_signature_prefix(self, sig: str) -> list[Any]:
        return [nodes.Text(self.env.config.celery_task_prefix)]


def autodoc_skip_member_handler(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Show tasks that autodoc would skip because an instance has no docstring of its own."""
    return False if skip and _is_task(obj) else None


def setup(app: Any) -> dict[str, Any]:
    """Add the directives, the role and the setting to a Sphinx application."""
    app.setup_extension("sphinx.ext.autodoc")
    if "autodoc_use_legacy_class_based" in app.config:
        # Sphinx 9: documenters of extensions are asked only then.
        app.config.autodoc_use_legacy_class_based = True
    app.add_autodocumenter(TaskDocumenter)
    app.add_directive_to_domain("py", "task", TaskDirective)
    app.add_role_to_domain("py", "task", PyXRefRole(fix_parens=True))
    app.add_config_value("celery_task_prefix", "(task)", "env")
    app.connect("autodoc-skip-member", autodoc_skip_member_handler)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
