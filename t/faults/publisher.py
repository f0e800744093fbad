"""Publish tasks and write down which ones are known to have been sent: ``publisher.py TASK COUNT [ARGUMENT ...]``.

``sent`` gets an id after its call returned, ``maybe`` before it: where the call raised, the broker may have it all the
same.  The id is chosen before the call, so that nothing is ever unknown.  ``FAULT_PACE`` is the pause between two calls
in seconds, ``FAULT_RETRY`` empty publishes once only, ``FAULT_TIMEOUT`` is the deadline of each call in seconds.
``FAULT_COUNTDOWN`` is ``FIRST,LAST``: delays from the one to the other; ``due`` gets the monotonic times.
"""

import os
import sys
import time
import uuid

import faultapp


def main(task: str, count: int, arguments: list[float]) -> None:
    directory = faultapp.DIRECTORY
    signature = getattr(faultapp, task)
    sent = os.open(os.path.join(directory, "sent"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    maybe = os.open(os.path.join(directory, "maybe"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    pace = float(os.environ.get("FAULT_PACE", 0))
    options = {"retry": bool(os.environ.get("FAULT_RETRY", "yes"))}
    if os.environ.get("FAULT_TIMEOUT"):
        options["timeout"] = float(os.environ["FAULT_TIMEOUT"])
    if os.environ.get("FAULT_QUEUE"):
        options["queue"] = os.environ["FAULT_QUEUE"]
    first, _, last = os.environ.get("FAULT_COUNTDOWN", "").partition(",")
    due = os.open(os.path.join(directory, "due"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    slowest = 0.0
    for number in range(count):
        task_id = str(uuid.uuid4())
        os.write(maybe, f"{task_id}\n".encode())
        began = time.monotonic()
        if first:
            options["countdown"] = float(first) + (float(last) - float(first)) * number / count
            os.write(due, f"{task_id} {began + options['countdown']}\n".encode())
        try:
            signature.apply_async(tuple(arguments), task_id=task_id, **options)
        except Exception as error:
            took = time.monotonic() - began
            print(f"{type(error).__name__} after {took:.1f} s: {str(error)[:200]}", file=sys.stderr, flush=True)
            time.sleep(0.05)
        else:
            os.write(sent, f"{task_id}\n".encode())
        slowest = max(slowest, time.monotonic() - began)
        if pace:
            time.sleep(pace)
    print(f"slowest call: {slowest:.2f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [float(word) for word in sys.argv[3:]])
