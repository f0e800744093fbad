"""Configuration: the settings and their names, layers, checks, and what may be shown of them.

=========== =================================================================
options     what a setting is
table       all of them: type, default, old name
naming      new, old and prefixed spellings
detect      from a user's object to ``Settings``
pending     settings before anything was read
view        ``Settings``, which is ``app.conf``
watch       has somebody changed the user's object?
checks      values that cannot be used, names that are nearly right
masking     what may be shown
=========== =================================================================

Users import these names from ``celery.app.defaults`` and ``celery.app.utils``.
"""
