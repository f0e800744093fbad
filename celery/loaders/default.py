"""The loader of the default app, used where nobody made one."""

from __future__ import annotations

import os
import warnings
from typing import Any

from celery.exceptions import NotConfigured
from celery.loaders.base import BaseLoader, import_config
from celery.utils.collections import AttributeDict, DictAttribute

__all__ = ("DEFAULT_CONFIG_MODULE", "Loader")

DEFAULT_CONFIG_MODULE = "celeryconfig"

#: Set this variable to be warned when there is no configuration module.
_WARN_VARIABLE = "C_WNOCONF"


class Loader(BaseLoader):
    """Reads the module ``celeryconfig``, or the one that ``CELERY_CONFIG_MODULE`` names."""

    def setup_settings(self, settingsdict: Any) -> DictAttribute:
        return DictAttribute(settingsdict)

    def read_configuration(self, fail_silently: bool = True) -> Any:  # type: ignore[override]
        """Import the configuration module; without one there are the defaults.

        Raises:
            ImproperlyConfigured: the module is there, and failed.
            ImportError: it is not there; unless ``fail_silently``.
        """
        name = os.environ.get("CELERY_CONFIG_MODULE") or DEFAULT_CONFIG_MODULE
        try:
            module = import_config(name, self.find_module)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]) or not fail_silently:
                raise
            if os.environ.get(_WARN_VARIABLE, "").lower() in ("1", "true", "yes", "on"):
                text = f"There is no configuration module {name!r}; the defaults are used."
                warnings.warn(NotConfigured(text), stacklevel=2)
            return AttributeDict()
        self.configured = True
        return self.setup_settings(module)
