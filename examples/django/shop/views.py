"""Two views: place an order, and see what became of it."""

import json

from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_POST
from django_celery_results.models import TaskResult

from shop.models import Order
from shop.tasks import price_order


@require_POST
def place_order(request):
    """Store the order; its task is sent when, and only if, the transaction commits."""
    wanted = json.loads(request.body)
    with transaction.atomic():
        order = Order.objects.create(item=wanted["item"], count=wanted["count"])
        price_order.delay_on_commit(order.pk)
        if order.count > 1000:
            transaction.set_rollback(True)
            return JsonResponse({"error": "we have not got so many"}, status=400)
    return JsonResponse({"id": order.pk}, status=201)


@require_GET
def show_order(request, order_id):
    """Show the order with the state of its task, as django-celery-results keeps it."""
    order = get_object_or_404(Order, pk=order_id)
    record = TaskResult.objects.filter(task_name="shop.tasks.price_order", task_args__contains=f"({order.pk},)").last()
    return JsonResponse(
        {
            "item": order.item,
            "total": order.total,
            "open": order.is_open,
            "state": record.status if record else "PENDING",
            "result": json.loads(record.result) if record and record.result else None,
        }
    )
