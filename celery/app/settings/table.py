"""The one table of settings: name, type, default and old name of each.

``broker_url`` is the row ``url`` below the prefix ``broker``.  The order is the one in which they are listed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery.app.settings.options import Option, flatten, searchresult

__all__ = (
    "NAMESPACES",
    "OPTIONS",
    "OURS",
    "DEFAULTS",
    "SETTING_KEYS",
    "NEW_BY_OLD",
    "OLD_BY_NEW",
    "UNDECLARED",
    "Defaults",
    "find",
)

DEFAULT_ACCEPT_CONTENT = ("json",)
DEFAULT_POOL = "prefork"
DEFAULT_PROCESS_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
DEFAULT_TASK_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
DEFAULT_SECURITY_DIGEST = "sha256"

#: patterns of old names, in lower case
OLD_NS = {"celery_{0}"}
OLD_NS_BEAT = {"celerybeat_{0}"}
OLD_NS_WORKER = {"celeryd_{0}"}

#: name, type, default and, where it follows no pattern, the old name in lower case
Row = tuple[Any, ...]

_GENERAL: tuple[Row, ...] = (
    ("accept_content", "list", DEFAULT_ACCEPT_CONTENT),
    ("result_accept_content", "list", None, "result_accept_content"),
    ("enable_utc", "bool", True, "enable_utc"),
    ("imports", "tuple", ()),
    ("include", "tuple", ()),
    ("timezone", "string", None),
)

_BY_PREFIX: tuple[tuple[str, str, tuple[Row, ...]], ...] = (
    (
        "beat",
        "celerybeat_{0}",
        (
            ("enable_remote_control", "bool", False),
            ("remote_control_max_tick_age", "float", None),
            ("max_loop_interval", "float", 0),
            ("schedule", "dict", {}),
            ("scheduler", "string", "celery.beat:PersistentScheduler"),
            ("schedule_filename", "string", "celerybeat-schedule"),
            ("sync_every", "int", 0),
            ("cron_starting_deadline", "int", None),
        ),
    ),
    (
        "broker",
        "broker_{0}",
        (
            ("url", "string", None),
            ("read_url", "string", None),
            ("write_url", "string", None),
            ("transport", "string", None),
            ("transport_options", "dict", {}),
            ("connection_timeout", "float", 4),
            ("connection_retry", "bool", True),
            ("connection_retry_on_startup", "bool", None),
            ("connection_max_retries", "int", 100),
            ("channel_error_retry", "bool", False),
            ("failover_strategy", "string", None),
            ("heartbeat", "int", 120),
            ("heartbeat_checkrate", "int", 3.0),
            ("login_method", "string", None),
            ("native_delayed_delivery_queue_type", "string", "quorum"),
            ("pool_limit", "int", 10),
            ("pool_acquire_timeout", "float", None),
            ("use_ssl", "bool", False),
            ("host", "string", None),
            ("port", "int", None),
            ("user", "string", None),
            ("password", "string", None),
            ("vhost", "string", None),
        ),
    ),
    (
        "cache",
        "celery_cache_{0}",
        (
            ("backend", "string", None),
            ("backend_options", "dict", {}),
        ),
    ),
    (
        "cassandra",
        "cassandra_{0}",
        (
            ("entry_ttl", "float", None),
            ("keyspace", "string", None),
            ("port", "string", None),
            ("read_consistency", "string", None),
            ("servers", "list", None),
            ("bundle_path", "string", None),
            ("table", "string", None),
            ("write_consistency", "string", None),
            ("auth_provider", "string", None),
            ("auth_kwargs", "string", None),
            ("options", "dict", {}),
        ),
    ),
    (
        "s3",
        "s3_{0}",
        (
            ("access_key_id", "string", None),
            ("secret_access_key", "string", None),
            ("bucket", "string", None),
            ("base_path", "string", None),
            ("endpoint_url", "string", None),
            ("region", "string", None),
        ),
    ),
    (
        "azureblockblob",
        "azureblockblob_{0}",
        (
            ("container_name", "string", "celery"),
            ("retry_initial_backoff_sec", "int", 2),
            ("retry_increment_base", "int", 2),
            ("retry_max_attempts", "int", 3),
            ("base_path", "string", ""),
            ("connection_timeout", "int", 20),
            ("read_timeout", "int", 120),
        ),
    ),
    (
        "gcs",
        "gcs_{0}",
        (
            ("bucket", "string", None),
            ("project", "string", None),
            ("base_path", "string", ""),
            ("ttl", "float", 0),
        ),
    ),
    (
        "control",
        "control_{0}",
        (
            ("queue_ttl", "float", 300.0),
            ("queue_expires", "float", 10.0),
            ("queue_exclusive", "bool", True),
            ("queue_durable", "bool", False),
            ("exchange", "string", "celery"),
        ),
    ),
    (
        "couchbase",
        "celery_couchbase_{0}",
        (("backend_settings", "dict", None),),
    ),
    (
        "arangodb",
        "celery_arangodb_{0}",
        (("backend_settings", "dict", None),),
    ),
    (
        "mongodb",
        "celery_mongodb_{0}",
        (("backend_settings", "dict", None),),
    ),
    (
        "cosmosdbsql",
        "cosmosdbsql_{0}",
        (
            ("database_name", "string", "celerydb"),
            ("collection_name", "string", "celerycol"),
            ("consistency_level", "string", "Session"),
            ("max_retry_attempts", "int", 9),
            ("max_retry_wait_time", "int", 30),
        ),
    ),
    (
        "event",
        "celery_event_{0}",
        (
            ("queue_expires", "float", 60.0),
            ("queue_ttl", "float", 5.0),
            ("queue_prefix", "string", "celeryev"),
            ("queue_exclusive", "bool", True),
            ("queue_durable", "bool", False),
            ("serializer", "string", "json"),
            ("exchange", "string", "celeryev"),
        ),
    ),
    (
        "redis",
        "celery_redis_{0}",
        (
            ("backend_use_ssl", "dict", None),
            ("db", "int", None),
            ("host", "string", None),
            ("max_connections", "int", None),
            ("username", "string", None),
            ("password", "string", None),
            ("port", "int", None),
            ("socket_timeout", "float", 120.0),
            ("socket_connect_timeout", "float", None),
            ("retry_on_timeout", "bool", False),
            ("socket_keepalive", "bool", False),
        ),
    ),
    (
        "result",
        "celery_result_{0}",
        (
            ("backend", "string", None),
            ("cache_max", "int", -1, "celery_max_cached_results"),
            ("compression", "str", None),
            ("exchange", "string", "celeryresults"),
            ("exchange_type", "string", "direct"),
            ("expires", "float", timedelta(days=1), "celery_task_result_expires"),
            ("chord_expires", "float", None),
            ("failure_expires", "float", None),
            ("persistent", "bool", None),
            ("extended", "bool", False),
            ("serializer", "string", "json"),
            ("backend_transport_options", "dict", {}),
            ("chord_retry_interval", "float", 1.0),
            ("chord_join_timeout", "float", 3.0),
            ("backend_max_sleep_between_retries_ms", "int", 10000),
            ("backend_max_retries", "float", float("inf")),
            ("backend_base_sleep_between_retries_ms", "int", 10),
            ("backend_always_retry", "bool", False),
        ),
    ),
    (
        "elasticsearch",
        "celery_elasticsearch_{0}",
        (
            ("retry_on_timeout", "bool", None),
            ("max_retries", "int", None),
            ("timeout", "float", None),
            ("save_meta_as_text", "bool", True),
        ),
    ),
    (
        "security",
        "celery_security_{0}",
        (
            ("certificate", "string", None),
            ("cert_store", "string", None),
            ("key", "string", None),
            ("key_password", "bytes", None),
            ("digest", "string", DEFAULT_SECURITY_DIGEST),
        ),
    ),
    (
        "database",
        "database_{0}",
        (
            ("url", "string", None, "celery_result_dburi"),
            ("engine_options", "dict", {"pool_pre_ping": True, "pool_recycle": 3600}, "celery_result_engine_options"),
            ("engine_callback", "any", None),
            ("short_lived_sessions", "bool", False, "celery_result_db_short_lived_sessions"),
            ("table_schemas", "dict", None),
            ("table_names", "dict", None, "celery_result_db_tablenames"),
            ("create_tables_at_setup", "bool", True),
        ),
    ),
    (
        "task",
        "celery_{0}",
        (
            ("acks_late", "bool", False),
            ("acks_on_failure_or_timeout", "bool", True),
            ("acks_on_failure", "bool", None),
            ("acks_on_timeout", "bool", None),
            ("always_eager", "bool", False),
            ("annotations", "any", None),
            ("compression", "string", None, "celery_message_compression"),
            ("create_missing_queues", "bool", True),
            ("create_missing_queue_type", "string", "classic"),
            ("create_missing_queue_exchange_type", "string", None),
            ("inherit_parent_priority", "bool", False),
            ("default_delivery_mode", "string", 2),
            ("default_queue", "string", "celery"),
            ("default_queue_type", "string", "classic"),
            ("default_exchange", "string", None),
            ("default_exchange_type", "string", "direct"),
            ("default_routing_key", "string", None),
            ("default_rate_limit", "string", None),
            ("default_priority", "string", None),
            ("eager_propagates", "bool", False, "celery_eager_propagates_exceptions"),
            ("ignore_result", "bool", False),
            ("store_eager_result", "bool", False),
            ("protocol", "int", 2, "celery_task_protocol"),
            ("publish_retry", "bool", True, "celery_task_publish_retry"),
            (
                "publish_retry_policy",
                "dict",
                {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
                "celery_task_publish_retry_policy",
            ),
            ("queues", "dict", None),
            ("queue_max_priority", "int", None),
            ("reject_on_worker_lost", "bool", None),
            ("retry_on_worker_lost", "bool", False),
            ("remote_tracebacks", "bool", False),
            ("repr_maxlevels", "int", 3),
            ("routes", "any", None),
            ("send_sent_event", "bool", False, "celery_send_task_sent_event"),
            ("serializer", "string", "json", "celery_task_serializer"),
            ("soft_time_limit", "float", None, "celeryd_task_soft_time_limit"),
            ("time_limit", "float", None, "celeryd_task_time_limit"),
            ("store_errors_even_if_ignored", "bool", False),
            ("track_started", "bool", False),
            ("allow_error_cb_on_chord_header", "bool", False),
        ),
    ),
    (
        "worker",
        "celeryd_{0}",
        (
            ("agent", "string", None),
            ("autoscaler", "string", "celery.worker.autoscale:Autoscaler"),
            ("cancel_long_running_tasks_on_connection_loss", "bool", False),
            ("soft_shutdown_timeout", "float", 0.0),
            ("enable_soft_shutdown_on_idle", "bool", False),
            ("concurrency", "any", None),
            ("consumer", "string", "celery.worker.consumer:Consumer"),
            ("direct", "bool", False, "celery_worker_direct"),
            ("disable_rate_limits", "bool", False, "celery_disable_rate_limits"),
            ("deduplicate_successful_tasks", "bool", False),
            ("enable_remote_control", "bool", True, "celery_enable_remote_control"),
            ("hijack_root_logger", "bool", True),
            ("log_color", "bool", None),
            ("log_datefmt", "string", None),
            ("log_format", "string", DEFAULT_PROCESS_LOG_FMT),
            ("lost_wait", "float", 10.0, "celeryd_worker_lost_wait"),
            ("max_memory_per_child", "int", None),
            ("max_tasks_per_child", "int", None),
            ("pool", "string", DEFAULT_POOL),
            ("pool_putlocks", "bool", True),
            ("pool_restarts", "bool", False),
            ("pool_start_method", "string", "fork"),
            ("proc_alive_timeout", "float", 4.0),
            ("prefetch_multiplier", "int", 4),
            ("eta_task_limit", "int", None),
            ("enable_prefetch_count_reduction", "bool", True),
            ("disable_prefetch", "bool", False),
            ("redirect_stdouts", "bool", True, "celery_redirect_stdouts"),
            ("redirect_stdouts_level", "string", "WARNING", "celery_redirect_stdouts_level"),
            ("send_task_events", "bool", False, "celery_send_events"),
            ("state_db", "string", None),
            ("task_log_datefmt", "string", None),
            ("task_log_format", "string", DEFAULT_TASK_LOG_FMT),
            ("timer", "string", None),
            ("timer_precision", "float", 1.0),
            ("detect_quorum_queues", "bool", True),
        ),
    ),
)

#: Settings that parts of Celery read, but that have no default and are listed only when somebody sets them.
UNDECLARED: dict[str, str] = {
    "redis_backend_health_check_interval": "int",
    "redis_backend_credential_provider": "any",
    "redis_client_name": "string",
    "result_backend_thread_safe": "bool",
    "cassandra_secure_bundle_path": "string",
    "override_backends": "dict",
    "firestore_project": "string",
    "gcs_threadpool_maxsize": "int",
    **{
        f"{program}_{option}": "string"
        for program in ("beat", "events", "worker")
        for option in ("executable", "gid", "logfile", "pidfile", "uid", "umask")
    },
}


#: What Celery does not have: prefix; name, type and default.
_OURS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    ("beat", (("leader_lease", "float", None), ("leader_url", "string", None))),
    ("control", (("allow", "list", None),)),
    (
        "security",
        (
            ("accept_upstream", "bool", False),
            ("nonce_store", "string", None),
            ("replay_window", "float", 259200.0),
        ),
    ),
)
#: The names of those.
OURS: frozenset[str] = frozenset(f"{prefix}_{name}" for prefix, rows in _OURS for name, *_ in rows)


def _option(pattern: str, name: str, kind: str, default: Any, old: str | None = None) -> Option:
    return Option(default, type=kind, old={old or pattern.format(name)})


def _namespaces() -> dict[str, Any]:
    tree: dict[str, Any] = {name: _option("celery_{0}", name, *rest) for name, *rest in _GENERAL}
    for prefix, pattern, rows in _BY_PREFIX:
        tree[prefix] = {name: _option(pattern, name, *rest) for name, *rest in rows}
    for prefix, rows in _OURS:
        tree[prefix].update({name: Option(default, type=kind) for name, kind, default in rows})
    late = tree["task"]["acks_on_failure_or_timeout"]
    late.deprecate_by, late.remove_by = "6.0", "7.0"
    late.alt = "task_acks_on_failure and task_acks_on_timeout"
    return tree


NAMESPACES: dict[str, Any] = _namespaces()
OPTIONS: dict[str, Option] = dict(flatten(NAMESPACES))
DEFAULTS: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}
SETTING_KEYS: set[str] = set(DEFAULTS)

NEW_BY_OLD: dict[str, str] = {old.upper(): name for name, option in OPTIONS.items() for old in option.old}
OLD_BY_NEW: dict[str, str] = {name: old for old, name in NEW_BY_OLD.items()}


class Defaults(dict[str, Any]):
    """The defaults as the lowest layer of one app's settings; changing a value in place changes no other app's."""

    def __init__(self) -> None:
        super().__init__(DEFAULTS)
        for name, value in DEFAULTS.items():
            if isinstance(value, (dict, list)):
                self[name] = value.copy()


def find(name: str, namespace: str = "celery") -> searchresult:
    """Find the setting ``name``: first below ``namespace``, then below any other, then as a full name.

    Raises:
        KeyError: there is no such setting.
    """
    preferred = NAMESPACES.get(namespace)
    if isinstance(preferred, dict) and name in preferred:
        return searchresult(namespace, name, preferred[name])
    for prefix, options in NAMESPACES.items():
        if prefix == name:
            return searchresult(None, name, options)
        if isinstance(options, dict) and name in options:
            return searchresult(prefix, name, options[name])
    return searchresult(None, name.lower(), OPTIONS[name.lower()])
