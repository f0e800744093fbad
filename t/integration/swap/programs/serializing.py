"""Serializers: pickle, yaml, msgpack, one of ours; types that JSON does not have; compression; refused content."""

import datetime
import decimal
import json
import uuid

import common
from kombu.serialization import register
from kombu.utils.json import register_type

register(
    "reversed",
    lambda data: json.dumps(data)[::-1],
    lambda text: json.loads(text[::-1]),
    content_type="application/x-reversed",
    content_encoding="utf-8",
)


class Point:
    def __init__(self, x):
        self.x = x


register_type(Point, "point", lambda p: p.x, Point)
app = common.app(
    "serializing",
    accept_content=["json", "pickle", "yaml", "msgpack", "reversed"],
    result_accept_content=["json", "pickle"],
)


@app.task
def kinds(*args, **kwargs):
    return [type(a).__name__ for a in args], {k: type(v).__name__ for k, v in sorted(kwargs.items())}


@app.task
def echo(x):
    return x


@app.task(serializer="pickle")
def pickled(x):
    return {"set": sorted(x)}


@app.task(compression="zlib")
def big(x):
    return len(x)


@app.task
def point(p):
    return p.x


@app.task
def unserializable():
    return object()


class Strange(Exception):
    def __init__(self, a, b, c):
        super().__init__(a)


@app.task
def strange():
    raise Strange(1, 2, 3)


def main(show):
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    show(
        kinds.delay(
            moment, moment.date(), moment.time(), decimal.Decimal("1.5"), uuid.UUID(int=5), b"x", (1,), None, k=1.5
        ).get(timeout=10)
    )
    show(
        echo.delay(moment).get(timeout=10),
        echo.delay(decimal.Decimal("1.50")).get(timeout=10),
        echo.delay(uuid.UUID(int=5)).get(timeout=10),
        echo.delay({"é": [1, None, True]}).get(timeout=10),
    )
    show(
        pickled.delay({3, 1, 2}).get(timeout=10),
        [
            kinds.apply_async((1, "a", [2]), serializer=s).get(timeout=10)
            for s in ("pickle", "yaml", "msgpack", "reversed", "json")
        ],
    )
    show(big.delay("x" * 100000).get(timeout=10), big.apply_async(("y" * 5000,), compression="bzip2").get(timeout=10))
    show(point.delay(Point(7)).get(timeout=10))
    r = unserializable.delay()
    show(type(r.get(timeout=10, propagate=False)).__name__, r.state)
    r = strange.delay()
    show(type(r.get(timeout=10, propagate=False)).__name__, r.state)
    try:
        echo.delay(object())
    except Exception as error:
        show(type(error).__name__)
    show(
        echo.delay(float("inf")).get(timeout=10),
        echo.delay(2**70).get(timeout=10),
        echo.delay("\u2028\x00").get(timeout=10) == "\u2028\x00",
    )
