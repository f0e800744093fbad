"""Mappings in layers, sets that forget, buffers with limits."""

from celery.utils.collections.attributes import AttributeDict, AttributeDictMixin, DictAttribute, force_mapping
from celery.utils.collections.buffers import BufferMap, Evictable, Messagebuffer, OrderedDict
from celery.utils.collections.forgetting import LimitedSet
from celery.utils.collections.layers import ChainMap, ConfigurationView, lpmerge

__all__ = (
    "AttributeDictMixin",
    "AttributeDict",
    "BufferMap",
    "ChainMap",
    "ConfigurationView",
    "DictAttribute",
    "Evictable",
    "LimitedSet",
    "Messagebuffer",
    "OrderedDict",
    "force_mapping",
    "lpmerge",
)

# Pickles name the door: a worker's file of revoked tasks holds a LimitedSet.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
