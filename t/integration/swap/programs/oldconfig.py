"""Settings under their old names in celeryconfig.py, json and pickle, time zone, no UTC; logging; app.conf."""

import common

app = common.celery.Celery("oldconfig")
app.config_from_object("oldconfig_settings")
common.finish(app)


@app.task
def add(x, y):
    return x + y


@app.task(bind=True)
def eta(self):
    return bool(self.request.eta), self.request.utc


@app.task
def when(moment):
    return type(moment).__name__


def main(show):
    show(add.delay(1, 2).get(timeout=10), eta.apply_async(countdown=0.2).get(timeout=10))
    conf = app.conf
    show(
        conf.task_serializer,
        conf.CELERY_TASK_SERIALIZER,
        conf["result_serializer"],
        conf.timezone,
        conf.enable_utc,
        conf.worker_prefetch_multiplier,
        conf.task_default_queue,
    )
    show(
        conf.task_annotations,
        conf.task_routes,
        conf.result_expires,
        conf.task_ignore_result,
        conf.get("nothing"),
        conf.get("CELERY_TASK_RESULT_EXPIRES"),
    )
    show(
        "CELERY_TIMEZONE" in conf,
        "timezone" in conf,
        conf.find_value_for_key("timezone") if hasattr(conf, "find_value_for_key") else None,
    )
    conf.update(task_always_eager=True)
    show(conf.task_always_eager, add.delay(2, 2).state, add.delay(2, 2).get(), when.delay(1).result)
    conf.task_always_eager = False
    conf.setdefault("my_own", 5)
    show(conf.my_own, conf["my_own"], app.now().tzinfo is not None, str(app.timezone))
    try:
        conf.no_such_setting
    except AttributeError as error:
        show(type(error).__name__)
    try:
        conf["no_such_setting"]
    except KeyError as error:
        show(type(error).__name__)
    other = common.celery.Celery("other", set_as_current=False, broker="memory://", changes={"task_serializer": "yaml"})
    show(other.conf.task_serializer, other.conf.broker_url, other.main, repr(other).startswith("<Celery other at 0x"))
    try:
        bad = common.celery.Celery("bad", set_as_current=False)
        bad.conf.update(CELERY_TASK_SERIALIZER="json", task_default_queue="q", CELERY_DEFAULT_QUEUE="z")
        show(bad.conf.task_default_queue is not None)
    except common.celery.exceptions.ImproperlyConfigured as error:
        show(type(error).__name__)
