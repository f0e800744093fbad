"""A Flask application whose tasks run inside its application context.

``flask --app app run`` serves it, ``celery -A app worker`` works for it; the broker is a file below ``SHOP_HOME``.
"""

import os

from flask import Flask, current_app, jsonify, request

from celery import Celery, Task, shared_task
from celery.result import AsyncResult

HOME = os.environ.get("SHOP_HOME", ".")


class ContextTask(Task):
    """A task whose body sees ``flask.current_app``."""

    def __call__(self, *args, **kwargs):
        with self.app.flask_app.app_context():
            return super().__call__(*args, **kwargs)


def make_app() -> Flask:
    """Return the Flask application, with the Celery app that belongs to it as ``extensions["celery"]``."""
    flask_app = Flask(__name__)
    flask_app.config.update(
        GREETING="Hello",
        CELERY={
            "broker_url": os.environ.get("SHOP_BROKER", f"sqlite:///{HOME}/broker.sqlite"),
            "result_backend": os.environ.get("SHOP_RESULTS", f"db+sqlite:///{HOME}/results.sqlite"),
        },
    )
    celery_app = Celery(flask_app.name, task_cls=ContextTask)
    celery_app.config_from_object(flask_app.config["CELERY"])
    celery_app.flask_app = flask_app
    celery_app.set_default()
    flask_app.extensions["celery"] = celery_app
    return flask_app


@shared_task
def greet(name):
    """Return a greeting in the words of the application's configuration."""
    if not name:
        raise ValueError("nobody to greet")
    return f"{current_app.config['GREETING']}, {name}"


app = make_app()
celery = app.extensions["celery"]


@app.post("/greetings")
def start():
    """Send the task; answers with the id under which its result will be found."""
    return jsonify(id=greet.delay(request.get_json()["name"]).id), 202


@app.get("/greetings/<task_id>")
def show(task_id):
    """Tell how far the task is, with its result or the error that it raised."""
    result = AsyncResult(task_id, app=celery)
    if result.failed():
        return jsonify(state=result.state, error=str(result.result)), 500
    return jsonify(state=result.state, result=result.result)
