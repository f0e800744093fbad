"""The project: importing it makes the Celery app, so that ``@shared_task`` finds it wherever Django runs."""

from proj.celery import app as celery_app

__all__ = ("celery_app",)
