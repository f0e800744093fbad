"""Loaders find the user's configuration and task modules."""

from __future__ import annotations

from typing import Any

__all__ = ("get_loader_cls",)

LOADER_ALIASES = {
    "app": "celery.loaders.app:AppLoader",
    "default": "celery.loaders.default:Loader",
}


def get_loader_cls(loader: Any) -> Any:
    """Return the class that ``loader`` names: an alias, a dotted path, or the class itself."""
    if not isinstance(loader, str):
        return loader
    path = LOADER_ALIASES.get(loader, loader)
    if path == LOADER_ALIASES["app"]:  # the usual one, without kombu
        from celery.loaders.app import AppLoader

        return AppLoader
    from celery.utils.imports import symbol_by_name

    return symbol_by_name(path, imp=_import_from_cwd)  # type: ignore[no-untyped-call]


def _import_from_cwd(module: str, *args: Any, **kwargs: Any) -> Any:
    from celery.utils.imports import import_from_cwd

    return import_from_cwd(module, *args, **kwargs)
