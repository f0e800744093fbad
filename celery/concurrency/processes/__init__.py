"""Child processes that run jobs: the parts of the prefork pool.

::

    Supervisor ─ submit(job) → backlog → Child ── frame ─→  serve()   in the child process
       ↑ on_started, on_finished, …      (socket, page) ←─ answer ─┘

`Supervisor` decides who gets what and replaces the dead; `Child` is the parent's view of one process;
`inside` is what runs in that process; `ProgressPage` is the memory that both see.
"""
