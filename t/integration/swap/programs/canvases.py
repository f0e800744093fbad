"""Chains, groups, chords, maps, links and what errors do to them."""

import common

from celery import chain, chord, group, signature, xstarmap

app = common.app("canvases")


@app.task
def add(x, y):
    return x + y


@app.task
def mul(x, y):
    return x * y


@app.task
def tsum(numbers):
    return sum(numbers)


@app.task
def fail(*args):
    raise ValueError("failed", *args)


@app.task
def note(*args):
    app.backend.client.rpush("notes", repr(args))


@app.task
def on_error(request, exc, traceback):
    app.backend.client.rpush("notes", f"{request.task} {exc!r} {'ValueError' in traceback}")


@app.task
def old_error(uuid):
    app.backend.client.rpush("notes", f"old {app.AsyncResult(uuid).state}")


@app.task(bind=True)
def split(self, n):
    raise self.replace(group(add.s(i, i) for i in range(n)))


@app.task(bind=True)
def grow(self, n):
    if n >= 3:
        return n
    return self.replace(grow.s(n + 1))


@app.task
def identity(x):
    return x


def notes():
    key = app.backend.client.blpop("notes", timeout=8)
    return key and key[1].decode()


def main(show):
    show((add.s(2, 2) | add.s(4) | mul.s(8))().get(timeout=10))
    show(chain(add.s(4, 4), mul.si(2, 3), add.s(1)).apply_async().get(timeout=10))
    show(group(add.s(i, i) for i in range(5))().get(timeout=10))
    show(chord([add.s(i, i) for i in range(5)])(tsum.s()).get(timeout=10))
    show((group(add.s(i, 1) for i in range(4)) | tsum.s() | add.s(100)).delay().get(timeout=10))
    show((add.s(1, 1) | group(add.s(i) for i in range(3))).delay().get(timeout=10))
    show((add.s(1, 1) | group(add.s(i) for i in range(3)) | tsum.s()).delay().get(timeout=10))
    show(group([chain(add.s(1, 1), add.s(2)), add.s(5, 5), group(add.s(1, 0), add.s(0, 1))]).delay().get(timeout=10))
    show(
        add.map([(1, 2)]).task,
        xstarmap is not None,
        add.starmap([(1, 2), (3, 4)]).delay().get(timeout=10),
        tsum.map([[1], [2, 3]]).delay().get(timeout=10),
    )
    show(
        add.chunks(zip(range(6), range(6), strict=False), 2).group().delay().get(timeout=10),
        add.chunks([(1, 2), (3, 4)], 1)().get(timeout=10),
    )
    add.apply_async((2, 2), link=note.s("linked"))
    show(notes())
    add.apply_async((2, 2), link=[note.si("immutable"), note.s()])
    show(sorted([notes(), notes()]))
    fail.apply_async((1,), link_error=on_error.s())
    show(notes())
    fail.apply_async((1,), link_error=old_error.s())
    show(notes())
    r = chain(add.s(1, 1), fail.s(), add.s(3)).on_error(on_error.s()).apply_async()
    show(
        notes(),
        repr(r.get(timeout=5, propagate=False))
        if r.parent.wait(timeout=5, propagate=False) is None
        else r.parent.state,
        r.parent.parent.get(),
    )
    r = chord([add.s(1, 1), fail.s()])(tsum.s().on_error(on_error.s()))
    show(notes(), type(r.get(timeout=10, propagate=False)).__name__, r.state)
    show(split.delay(3).get(timeout=10), grow.delay(0).get(timeout=10))
    show((split.s(3) | tsum.s()).delay().get(timeout=10))
    partial = add.s(2)
    show(
        partial,
        partial.clone((4,)),
        partial.delay(5).get(timeout=10),
        add.s(1, y=2),
        add.signature((1, 2), countdown=1).options,
        add.si(1, 1).immutable,
    )
    show(
        signature(dict(add.s(1, 2))).delay().get(timeout=10),
        chain(add.s(1, 2), mul.s(3)),
        group([add.s(1, 2), mul.s(3, 4)]),
        chord([add.s(1, 2)], tsum.s()),
    )
    g = group(add.s(i, i) for i in range(3)).apply_async()
    g.get(timeout=10)
    g.save()
    again = app.GroupResult.restore(g.id)
    show(again.get(), g.successful(), g.completed_count(), len(g), again == g, g.failed(), g.waiting(), g.ready())
    g.delete()
    show(app.GroupResult.restore(g.id), group().delay().get(timeout=5))
    r = group(add.s(1, 1), fail.s(7))()
    try:
        r.get(timeout=10)
    except ValueError as error:
        show(repr(error), r.failed(), r.successful(), [x.state for x in r.results])
    show([repr(v) for v in r.get(timeout=5, propagate=False)])
    chain_result = (identity.s(5) | identity.s() | identity.s()).delay()
    chain_result.get(timeout=10)
    show([v for _, v in chain_result.collect()], chain_result.graph is not None)
    show(chord([])(tsum.s()).get(timeout=10), chord([add.s(1, 1)])(tsum.s()).get(timeout=10))
    show(
        (chord([add.s(1, 1), add.s(2, 2)], tsum.s()) | add.s(1)).delay().get(timeout=10),
        chain(identity.s(1))().get(timeout=5),
    )
