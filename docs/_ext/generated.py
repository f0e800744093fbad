"""Directives for what the code itself lists: ``celery-settings`` (with ``settings.ini``), ``celery-commands``."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from celery.app.settings.table import OLD_BY_NEW, OPTIONS, Option
from celery.bin.celery import COMMANDS

SENTENCES = Path(__file__).resolve().parents[1] / "reference" / "settings.ini"


def sections() -> dict[str, dict[str, str]]:
    """Return title → name → what the setting means.

    Raises:
        ValueError: a setting has no sentence, or a sentence no setting.
    """
    parser = configparser.RawConfigParser()
    parser.read_string(SENTENCES.read_text())
    found = {title: dict(parser.items(title)) for title in parser.sections()}
    told = {name for meanings in found.values() for name in meanings}
    if odd := told ^ set(OPTIONS):
        raise ValueError(f"{SENTENCES.name} and the table of settings disagree about: {', '.join(sorted(odd))}")
    return found


def default(option: Option) -> str:
    """Return the default as a reader would write it."""
    if isinstance(option.default, timedelta):
        return f"{option.default.total_seconds():g} seconds"
    return repr(option.default)


def settings_markdown() -> Iterator[str]:
    for title, meanings in sections().items():
        yield f"## {title}\n"
        for name, meaning in meanings.items():
            option = OPTIONS[name]
            old = OLD_BY_NEW.get(name, "")
            yield f"### {name}\n\n{meaning}\n"
            facts = [f"Type `{option.type}`", f"default `{default(option)}`"]
            if old and old.lower() != name:
                facts.append(f"old name `{old.upper()}`")
            yield f"{', '.join(facts)}.\n"


def commands_markdown() -> Iterator[str]:
    for name, place in sorted(COMMANDS.items()):
        if find_spec(place.partition(":")[0]) is None:
            continue
        yield f"```{{eval-rst}}\n.. click:: {place}\n   :prog: celery {name}\n   :nested: full\n```\n"


class CommandsDirective(SphinxDirective):
    """Puts the sections of all commands of the program where it stands."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(commands_markdown()), allow_section_headings=True)


class SettingsDirective(SphinxDirective):
    """Puts the sections of all settings where it stands."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(SENTENCES))
        return self.parse_text_to_nodes("\n".join(settings_markdown()), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("celery-settings", SettingsDirective)
    app.add_directive("celery-commands", CommandsDirective)
    return {"parallel_read_safe": True}
