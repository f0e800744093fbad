"""What every program starts from: an app on the Redis that SWAP_BROKER names."""

import os

import celery
import celery.exceptions

celery.exceptions = celery.exceptions


def app(name, **settings):
    url = os.environ["SWAP_BROKER"]
    return finish(celery.Celery(name, broker=url, backend=url), **settings)


def finish(app, **settings):
    app.conf.update(broker_connection_retry_on_startup=True, **settings)
    return app
