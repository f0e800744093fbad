"""``celery upgrade``: bring a project's files to the names of today."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import click

from celery.app.settings.table import NEW_BY_OLD
from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options
from celery.bin.errors import EX_CONFIG, Failure


@click.group()
@click.pass_context
@handle_preload_options
def upgrade(ctx: click.Context) -> None:
    """Bring a project's files to the names of today."""


def _flag(name: str, text: str) -> Any:
    return click.option(name, cls=CeleryOption, is_flag=True, help_group="Upgrading Options", help=text)


@upgrade.command(cls=CeleryCommand)
@click.argument("filename")
@_flag("--django", "Write names for a Django project: in capitals, with the prefix CELERY_.")
@_flag("--compat", "The same as --django; for modules that are read with namespace='CELERY'.")
@_flag("--no-backup", "Keep no copy of the file as it was (FILENAME.orig).")
@click.pass_context
@handle_preload_options
def settings(ctx: click.Context, filename: str, django: bool, compat: bool, no_backup: bool) -> None:
    """Rewrite the settings in FILENAME from old names, such as CELERYD_CONCURRENCY, to new ones."""
    path = Path(filename)
    say = ctx.obj.error
    try:
        with path.open(encoding="utf-8", newline="") as file:  # line ends stay what they are
            before = file.read()
        after = renamed(before, "CELERY_" if django or compat else None)
        say(ctx.obj.style(f"processing {filename}...", fg="green"))
        if after == before:
            say("Does not seem to require any changes :-)")
            return
        if not no_backup:
            backup = path.with_name(path.name + ".orig")
            say(ctx.obj.style(f"writing backup to {path.parent / backup.name}...", fg="green"))
            shutil.copy2(path, backup)
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(after)
    except OSError as exc:
        raise Failure(f"{exc.filename}: {exc.strerror}.", EX_CONFIG) from exc
    except UnicodeDecodeError as exc:
        raise Failure(f"{filename} is no text in UTF-8: {exc.reason} at byte {exc.start}.", EX_CONFIG) from exc
    say("Changes to your setting have been made!")


def renamed(source: str, prefix: str | None = None) -> str:
    """Return ``source`` with each old setting name replaced by the new one.

    With ``prefix`` the new names are in capitals behind it, as Django's settings have them.
    """
    table = {old: _spelled(new, prefix) for old, new in NEW_BY_OLD.items()}
    names = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    return re.sub(rf"(?<![\w])(?:{names})(?![\w])", lambda found: table[found[0]], source)


def _spelled(new: str, prefix: str | None) -> str:
    return f"{prefix}{new.upper()}" if prefix else new
