"""What Django projects use: see ``celery.contrib.django.task``."""
