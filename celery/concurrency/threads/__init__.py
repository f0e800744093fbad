"""Threads that run jobs: the parts of the threads pool.

`Seat` is one thread, with the loop that it runs; `Limits` are the time limits, enforced on the loop's thread.
"""
