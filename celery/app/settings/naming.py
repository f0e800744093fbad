"""How a configuration spells its names: new, old (upper case), or with the user's prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from celery.app.settings.table import NEW_BY_OLD, OLD_BY_NEW, OURS, SETTING_KEYS
from celery.exceptions import ImproperlyConfigured

__all__ = ("SpellingOf", "old_to_new", "new_to_old", "old_names_in", "spellings", "user_prefix")

SpellingOf = Callable[[str], str]


def old_to_new(name: str) -> str:
    """Return the new name of ``name``, or ``name`` if it is no old one."""
    return NEW_BY_OLD.get(name, name)


def new_to_old(name: str) -> str:
    """Return the old name of ``name``, or ``name`` if it is no new one."""
    return OLD_BY_NEW.get(name, name)


def user_prefix(namespace: str | None) -> str | None:
    """Return what ``config_from_object(namespace="CELERY")`` puts before a name: ``CELERY_``."""
    if not namespace:
        return None
    return namespace if namespace.endswith("_") else f"{namespace}_"


def spellings(name: str, prefix: str | None, alternatives: Iterable[SpellingOf]) -> tuple[str, ...]:
    """Return the names under which ``name`` may stand in a layer, best first.

    ``alternatives`` are functions such as ``new_to_old``.  An old name also finds what is set under the new one.
    """
    found = [name, *(alternative(name) for alternative in alternatives)]
    if prefix:
        found[:0] = [prefix + (each.upper() if prefix.isupper() else each) for each in found if each.islower()]
    return tuple(dict.fromkeys(found))


def old_names_in(
    names: Iterable[str],
    *,
    ignored: Iterable[str] = (),
    new_names: Iterable[str] | None = None,
    old_names: Iterable[str] | None = None,
) -> set[str]:
    """Return the old names among ``names``.

    Raises:
        ImproperlyConfigured: old and new names are mixed.  Giving both spellings of one setting is no mixing:
            that is how a configuration serves two versions.
    """
    names = {*names} - {*ignored}
    new = names & {*(SETTING_KEYS - OURS if new_names is None else new_names)}
    old = names & {*(NEW_BY_OLD if old_names is None else old_names)}
    if new and old:
        # The side with fewer names is taken for the one to change.
        if len(old) <= len(new):
            _refuse_mix({name: NEW_BY_OLD[name] for name in old if NEW_BY_OLD.get(name, name) not in names}, "new")
        else:
            _refuse_mix({name: OLD_BY_NEW[name] for name in new if OLD_BY_NEW.get(name, name) not in names}, "old")
    return old


def _refuse_mix(renames: Mapping[str, str], to: str) -> None:
    if not renames:
        return
    width = max(map(len, renames))
    table = "\n".join(f"    {before:<{width}}  ->  {after}" for before, after in sorted(renames.items()))
    raise ImproperlyConfigured(
        f"Old and new setting names are mixed. Rename these to the {to} names:\n\n{table}\n\n"
        "or give both spellings of each. `celery upgrade settings FILE` rewrites a file to the new names."
    )
