"""Settings of the example: files below ``SHOP_HOME``, or a PostgreSQL that ``SHOP_DATABASE`` names."""

import os
from pathlib import Path
from urllib.parse import urlsplit

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("SHOP_HOME", BASE_DIR))


def database(url: str) -> dict:
    """Return Django's entry for a database URL, of PostgreSQL or of a SQLite file."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path, "OPTIONS": {"timeout": 20}}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": parts.username,
        "PASSWORD": parts.password,
        "HOST": parts.hostname,
        "PORT": parts.port,
        "CONN_MAX_AGE": 60,
    }


SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "only for the example")
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "proj.urls"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_celery_results", "django_celery_beat", "shop"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django.request": {"handlers": ["console"]}},
}
DATABASES = {"default": database(os.environ.get("SHOP_DATABASE", f"sqlite:///{HOME}/shop.sqlite"))}

# One file is the broker; any other, such as redis://localhost, works the same.
CELERY_BROKER_URL = os.environ.get("SHOP_BROKER", f"sqlite:///{HOME}/broker.sqlite")
CELERY_RESULT_BACKEND = "django-db"
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
CELERY_TIMEZONE = TIME_ZONE
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
