"""A FastAPI application that hands work to Celeriac and waits for it without blocking its event loop.

``uvicorn app:api`` serves it, ``celery -A app worker`` works for it; the broker is a file below ``SHOP_HOME``.
"""

import asyncio
import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from celery import Celery
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult

HOME = os.environ.get("SHOP_HOME", ".")

celery = Celery(
    "app",
    broker=os.environ.get("SHOP_BROKER", f"sqlite:///{HOME}/broker.sqlite"),
    backend=os.environ.get("SHOP_RESULTS", f"db+sqlite:///{HOME}/results.sqlite"),
)
api = FastAPI()


class Basket(BaseModel):
    """Prices by the piece, and how many of each."""

    prices: dict[str, float]
    counts: dict[str, int]


class Bill(BaseModel):
    """What the basket costs."""

    total: float
    pieces: int


@celery.task(pydantic=True)
def bill(basket: Basket) -> Bill:
    """Return the bill for a basket; fails for a piece without a price."""
    return Bill(
        total=sum(basket.prices[name] * count for name, count in basket.counts.items()),
        pieces=sum(basket.counts.values()),
    )


@api.post("/bills", status_code=202)
async def start(basket: Basket) -> dict[str, str]:
    """Send the task from a thread: publishing talks to the broker, and other requests go on meanwhile."""
    result = await asyncio.to_thread(bill.delay, basket.model_dump())
    return {"id": result.id}


@api.get("/bills/{task_id}")
async def show(task_id: str, wait: float = 0.0) -> Bill:
    """Return the bill, waiting up to ``wait`` seconds for it; 404 while there is none, 422 if the task failed."""
    result = AsyncResult(task_id, app=celery)
    try:
        return Bill(**await asyncio.to_thread(result.get, timeout=wait))
    except ResultTimeout as error:
        raise HTTPException(404, "not ready") from error
    except KeyError as error:
        raise HTTPException(422, f"no price for {error}") from error
