import inspect

import pytest

from celery import signals

#: the signals and the arguments they declare, as users know them
DECLARED = {
    "after_setup_logger": "colorize format logfile logger loglevel",
    "after_setup_task_logger": "colorize format logfile logger loglevel",
    "after_task_publish": "body exchange routing_key",
    "beat_embedded_init": "",
    "beat_init": "",
    "before_task_publish": "body declare exchange headers properties retry_policy routing_key",
    "celeryd_after_setup": "conf instance",
    "celeryd_init": "conf instance options",
    "eventlet_pool_apply": "args kwargs target",
    "eventlet_pool_postshutdown": "",
    "eventlet_pool_preshutdown": "",
    "eventlet_pool_started": "",
    "heartbeat_sent": "",
    "import_modules": "",
    "setup_logging": "colorize format logfile loglevel",
    "task_failure": "args einfo exception kwargs task_id traceback",
    "task_internal_error": "args einfo exception kwargs request task_id traceback",
    "task_postrun": "args kwargs retval task task_id",
    "task_prerun": "args kwargs task task_id",
    "task_received": "request",
    "task_rejected": "exc message",
    "task_retry": "einfo reason request",
    "task_revoked": "expired request signum terminated",
    "task_sent": "args eta kwargs task task_id taskset",
    "task_success": "result runtime",
    "task_unknown": "exc id message name",
    "user_preload_options": "app options",
    "worker_before_create_process": "",
    "worker_init": "",
    "worker_process_init": "",
    "worker_process_shutdown": "",
    "worker_ready": "",
    "worker_shutdown": "",
    "worker_shutting_down": "",
}


@pytest.mark.parametrize("name", DECLARED)
def test_signals_declare_their_arguments(name):
    signal = getattr(signals, name)
    assert (signal.name, signal.providing_args) == (name, set(DECLARED[name].split()))


def test_there_are_no_other_signals():
    found = {name for name, value in vars(signals).items() if isinstance(value, signals.Signal)}
    assert found == set(DECLARED)
    assert set(signals.__all__) == found - {"import_modules", "task_sent", "user_preload_options"}
    assert inspect.getdoc(signals)
