"""Workflows as values: a signature is a call that nobody has made yet; chain, group and chord are made of them.

::

    task.s(1) | task.s(2) → joining → _chain → prepare_steps: ids, parents → first step is sent, the rest travels in it
"""

from celery.canvas import joining as _joining  # gives | its meaning
from celery.canvas.chains import _chain, chain
from celery.canvas.chords import _chord, chord
from celery.canvas.groups import group, maybe_unroll_group
from celery.canvas.maps import _basemap, chunks, xmap, xstarmap
from celery.canvas.signatures import (
    Signature,
    maybe_signature,
    maybe_subtask,
    signature,
    subtask,
    task_name_from,
)
from celery.canvas.stamping import StampingVisitor

__all__ = (
    "Signature",
    "chain",
    "xmap",
    "xstarmap",
    "chunks",
    "group",
    "chord",
    "signature",
    "maybe_signature",
)

# pickles made here are read by Celery, which knows this path and no other
for _name in (Signature, StampingVisitor, _basemap, _chain, chain, chord, chunks, group, maybe_signature,
              maybe_unroll_group, signature, task_name_from, xmap, xstarmap):  # fmt: skip
    _name.__module__ = __name__
del _name
