"""A Django project of its own process: settings, discovery, transactions, connections."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("django")

PROJECT = {
    "proj/__init__.py": "from .celery import app as celery_app\n",
    "proj/settings.py": """
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "things"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
CELERY_BROKER_URL = "memory://"
CELERY_TASK_ALWAYS_EAGER = True
""",
    "proj/celery.py": """
import os
from celery import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
""",
    "things/__init__.py": "",
    "things/models.py": """
from django.db import models

class Thing(models.Model):
    name = models.CharField(max_length=30)
""",
    "things/tasks.py": """
from celery import shared_task
from .models import Thing

@shared_task
def make(name):
    return Thing.objects.create(name=name).name
""",
    "run.py": """
from proj import celery_app as app

app.loader.import_default_modules()  # as a worker does; sets the project up
from django.db import connection, transaction
from things.models import Thing
from things.tasks import make

print(app.conf.broker_url, "things.tasks.make" in app.tasks)
with connection.schema_editor() as editor:
    editor.create_model(Thing)
with transaction.atomic():
    make.delay_on_commit("on commit")
    make.apply_async_on_commit(("too",))
    print(Thing.objects.count())
print(Thing.objects.count())
try:
    with transaction.atomic():
        make.delay_on_commit("never")
        1 / 0
except ZeroDivisionError:
    print(Thing.objects.count())

fixup, = app._fixups
fixup.on_worker_init(sender=None)
print(connection.connection)
make.apply(("eager",))
print(connection.connection is not None)
connection.settings_dict["CONN_MAX_AGE"] = 0
Thing.objects.count()
connection.close_at = 0
fixup.worker_fixup.close_database()
print(connection.connection)
Thing.objects.count()
fixup.worker_fixup.on_worker_process_init()
print(connection.connection)
""",
}


@pytest.fixture
def project(tmp_path):
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(project, script="run.py"):
    process = subprocess.run([sys.executable, script], cwd=project, capture_output=True, text=True, timeout=60)
    return process.stdout.splitlines(), process.stderr


def test_a_project_works(project):
    printed, errors = run(project)
    assert printed == ["memory:// True", "0", "2", "2", "None", "True", "None", "None"], errors


def test_errors_of_the_project_are_told_and_stop_nobody(project):
    (project / "things/models.py").write_text(
        "from django.db import models\nclass Thing(models.Model):\n    name = models.CharField(max_length=-1)\n"
    )
    (project / "start.py").write_text(
        "from proj import celery_app as app\napp.loader.import_default_modules()\nprint('started')\n"
    )
    printed, errors = run(project, "start.py")
    assert printed == ["started"], errors
    assert "The Django project has an error (CELERY_SKIP_CHECKS=1 runs no checks): things.Thing.name: " in errors
    assert "max_length" in errors


def test_threads_of_a_web_server_find_the_app_of_the_project(project):
    (project / "threads.py").write_text(
        """
from concurrent.futures import ThreadPoolExecutor
from proj import celery_app as app
from celery import current_app
import django; django.setup()
from things.tasks import make

with ThreadPoolExecutor() as threads:
    print(threads.submit(lambda: (current_app.main, make.app is app, hasattr(make, "delay_on_commit"))).result())
"""
    )
    printed, errors = run(project, "threads.py")
    assert printed == ["('proj', True, True)"], errors
