"""What the shop remembers."""

from django.db import models


class Order(models.Model):
    """An order of ``count`` pieces of ``item``; ``total`` is known once the task has run."""

    item = models.CharField(max_length=100)
    count = models.PositiveIntegerField()
    total = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    is_open = models.BooleanField(default=True)
