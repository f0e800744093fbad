"""The loader of apps that users make."""

from __future__ import annotations

from celery.loaders.base import BaseLoader

__all__ = ("AppLoader",)


class AppLoader(BaseLoader):
    """Reads what the app was told to read, and ``CELERY_CONFIG_MODULE`` otherwise."""
