"""Find the result backend that a name or a URL asks for."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from celery._state import get_current_app
from celery.exceptions import ImproperlyConfigured
from celery.utils.imports import load_extension_class_names

__all__ = ("by_name", "by_url")

#: short name → class; packages add to it by the entry point group ``celery.result_backends``
BACKEND_ALIASES: dict[str, str] = {
    "rpc": "celery.backends.rpc.RPCBackend",
    "cache": "celery.backends.cache:CacheBackend",
    "redis": "celery.backends.redis:RedisBackend",
    "rediss": "celery.backends.redis:RedisBackend",
    "sentinel": "celery.backends.redis:SentinelBackend",
    "mongodb": "celery.backends.mongodb:MongoBackend",
    "db": "celery.backends.database:DatabaseBackend",
    "database": "celery.backends.database:DatabaseBackend",
    "elasticsearch": "celery.backends.elasticsearch:ElasticsearchBackend",
    "cassandra": "celery.backends.cassandra:CassandraBackend",
    "couchbase": "celery.backends.couchbase:CouchbaseBackend",
    "couchdb": "celery.backends.couchdb:CouchBackend",
    "cosmosdbsql": "celery.backends.cosmosdbsql:CosmosDBSQLBackend",
    "riak": "celery.backends.riak:RiakBackend",
    "file": "celery.backends.filesystem:FilesystemBackend",
    "disabled": "celery.backends.base:DisabledBackend",
    "consul": "celery.backends.consul:ConsulBackend",
    "dynamodb": "celery.backends.dynamodb:DynamoDBBackend",
    "azureblockblob": "celery.backends.azureblockblob:AzureBlockBlobBackend",
    "arangodb": "celery.backends.arangodb:ArangoDbBackend",
    "s3": "celery.backends.s3:S3Backend",
    "gs": "celery.backends.gcs:GCSBackend",
}


def by_name(backend: Any = None, loader: Any = None, extension_namespace: str = "celery.result_backends") -> Any:
    """Return the backend class called ``backend``: an alias, a dotted path, or the class itself.

    Raises:
        ImproperlyConfigured: there is none, or it cannot be imported.
    """
    backend = backend or "disabled"
    if not isinstance(backend, str):
        return backend
    loader = loader or get_current_app().loader
    path = {**BACKEND_ALIASES, **loader.override_backends}.get(backend)
    if path is None:
        path = dict(load_extension_class_names(extension_namespace)).get(backend, backend)
    return _load(backend, path)


def _load(name: str, path: Any) -> Any:
    from celery.utils.imports import symbol_by_name

    try:
        found = symbol_by_name(path)  # type: ignore[no-untyped-call]
    except (ImportError, AttributeError, ValueError) as error:
        if path == name and not ("." in name or ":" in name):
            raise ImproperlyConfigured(_unknown(name)) from None
        if path == BACKEND_ALIASES.get(name) and not _is_there(path):
            raise ImproperlyConfigured(
                f"This version has no result backend `{name}`. It has {', '.join(_those_there())}; or name a class."
            ) from None
        raise ImproperlyConfigured(f"The result backend `{name}` cannot be loaded from {path}: {error}.") from error
    if isinstance(found, ModuleType):
        raise ImproperlyConfigured(f"Unknown result backend `{name}`: that is a module, name the class in it.")
    return found


def _unknown(name: str) -> str:
    known = _those_there()
    nearest = get_close_matches(name, known, n=1, cutoff=0.7)
    hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
    return f"Unknown result backend `{name}`.{hint} Known: {', '.join(known)}."


def _those_there() -> list[str]:
    """Return the short names of stores that are in this version; Celery has more."""
    return sorted(name for name, path in BACKEND_ALIASES.items() if _is_there(path))


def _is_there(path: str) -> bool:
    return find_spec(path.replace(":", ".").rpartition(".")[0]) is not None


def by_url(backend: Any = None, loader: Any = None) -> tuple[Any, str | None]:
    """Return ``(class, url)`` for the setting ``result_backend``.

    ``db+sqlite:///x`` is the class ``db`` with the URL ``sqlite:///x``.  Without a URL in it: ``(class, None)``.
    """
    url = None
    if isinstance(backend, str) and "://" in backend:
        url = backend
        scheme = url.partition("://")[0]
        if "+" in scheme:
            backend, url = url.split("+", 1)
        else:
            backend = scheme
    return by_name(backend, loader), url
