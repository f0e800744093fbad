"""``celery events``: the cluster on a terminal, as it lives.

Events come in on a thread of their own; the main thread draws and reads keys.
"""

from __future__ import annotations

import curses
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from celery import VERSION_BANNER, states
from celery._state import app_or_default
from celery.events import display
from celery.events.capture import capture_for_ever
from celery.events.screen import Screen

__all__ = ("CursesMonitor", "evtop")

KEYS = (
    ("j k ↓ ↑", "select; PgUp PgDn g G go further"),
    ("i Enter", "all that is known of the task"),
    ("t", "traceback"),
    ("r", "result, from the result store"),
    ("c", "revoke the task"),
    ("x", "terminate the task where it runs"),
    ("l", "set the rate limit of the tasks of that name"),
    ("w", "workers, or tasks again"),
    ("s", "only tasks in one state, then in the next"),
    ("/", "only tasks whose name, id, worker or arguments have a text"),
    ("p", "pause: the screen stands still"),
    ("h ?", "this page"),
    ("q ^C", "quit"),
)

#: States that the key `s` goes through; None is all.
FILTERS = (None, states.STARTED, states.FAILURE, states.RETRY, states.SUCCESS, states.RECEIVED, states.REVOKED)


class CursesMonitor(Screen):
    """Shows a `State` on a terminal.  ``keymap`` has further keys: a capital letter → a function without arguments."""

    keymap: dict[str, Callable[[], Any]] = {}
    keyalias = {curses.KEY_DOWN: "J", curses.KEY_UP: "K", curses.KEY_ENTER: "I"}

    selected_task: str | None = None
    selected_position = 0
    selected_str = "Selected: "
    foreground = curses.COLOR_BLACK
    background = curses.COLOR_WHITE
    online_str = "Workers online: "
    help_title = "Keys: "
    help = "j:down k:up i:info t:traceback r:result c:revoke l:rate limit w:workers /:filter h:help q:quit"
    greet = f"celery events {VERSION_BANNER}"
    info_str = "Info: "

    def __init__(self, state: Any, app: Any, keymap: dict[str, Callable[[], Any]] | None = None) -> None:
        self.app = app
        self.state = state
        self.keymap = {
            "J": self.move_selection_down,
            "K": self.move_selection_up,
            "C": self.revoke_selection,
            "X": self.terminate_selection,
            "T": self.selection_traceback,
            "R": self.selection_result,
            "I": self.selection_info,
            "L": self.selection_rate_limit,
            "W": self.switch_view,
            "S": self.next_filter,
            "P": self.pause,
            "/": self.ask_for_text,
            "H": self.show_keys,
            "?": self.show_keys,
            "\n": self.selection_info,
            "Q": self.quit,
            **(keymap or {}),
        }
        super().__init__()
        self.pace = display.Pace()
        #: What happened to the connection, where something did.
        self.notice = ""
        self.is_running = True
        self.shows_workers = False
        self.is_paused = False
        self.only_state: str | None = None
        self.only_text = ""
        self._offset = 0
        #: What is on the screen: the tasks of the table, and how many there are of each state.
        self._rows: list[tuple[Any, Any]] = []
        self._totals: list[tuple[str, str]] = []

    # -- where things are on the screen

    @property
    def display_height(self) -> int:
        """How many rows there are for tasks."""
        return max(1, self.screen_height - self._head_height - self._foot_height)

    @property
    def limit(self) -> int:
        return self.display_height

    @property
    def _head_height(self) -> int:
        return 3 if self.screen_height >= 8 else 1

    @property
    def _foot_height(self) -> int:
        """Lines about the selection, the workers and the keys, where there is room for them."""
        return 4 if self.screen_height >= 14 else 1 if self.screen_height >= 6 else 0

    # -- what is shown

    @property
    def tasks(self) -> list[tuple[str, Any]]:
        """The tasks that are on the screen: id and task."""
        return list(islice(self._matching(), self._offset, self._offset + self.limit))

    @property
    def workers(self) -> list[str]:
        """The names of the workers that are alive."""
        return [worker.hostname for worker in self.state.alive_workers()]

    def _matching(self) -> Iterator[tuple[str, Any]]:
        """Yield the tasks that pass the filters, the newest first."""
        for uuid, task in self.state.tasks_by_time():
            if self.only_state not in (None, task.state):
                continue
            if self.only_text and not self._has_text(uuid, task):
                continue
            yield uuid, task

    def _has_text(self, uuid: str, task: Any) -> bool:
        worker = task.worker.hostname if task.worker else ""
        places = (uuid, task.name, worker, task.args, task.kwargs)
        return any(self.only_text.lower() in str(place or "").lower() for place in places)

    def format_row(self, uuid: str, task: str, worker: str, timestamp: str, state: str) -> str:
        """Return a line of the table."""
        return display.row(display.task_columns(self.display_width), uuid, task, worker, timestamp, state)

    def display_task_row(self, lineno: int, task: Any) -> None:
        """Draw a task in a line."""
        columns = display.task_columns(self.display_width)
        worker = task.worker.hostname if task.worker else ""
        line = self.format_row(task.uuid, task.name or "?", worker, display.clock_time(task.timestamp), task.state)
        is_selected = task.uuid == self.selected_task
        color = self.state_colors.get(task.state, curses.A_NORMAL)
        self.safe_add_str(lineno, 0, line.ljust(self.display_width), curses.A_REVERSE if is_selected else 0)
        state_at = max(0, len(line) - columns.state)
        self.safe_add_str(lineno, state_at, line[state_at:], color | (curses.A_REVERSE if is_selected else 0))

    def draw(self) -> None:
        """Draw the whole screen; only what differs is sent to the terminal."""
        if not self.is_paused:
            self.state.freeze_while(self._look)
        with self.lock:
            self.win.erase()
            self._draw_head()
            if self.shows_workers:
                self._draw_workers()
            else:
                self._draw_tasks()
            self._draw_foot()
            self.win.refresh()

    def _look(self) -> None:
        """Take in what is to be drawn, while no event comes in."""
        self._keep_selection_in_sight()
        self._rows = self.tasks
        self._totals = list(display.totals(self.state.tasks.values()))

    def _draw_head(self) -> None:
        width = self.display_width
        seconds = min(30, max(0, width - 60))
        chart = (
            display.sparkline(self.pace.last(seconds), display.BARS if self.has_unicode else display.ASCII_BARS)
            if seconds
            else ""
        )
        rate = f"{self.pace.per_second():.1f} tasks/s"
        clock = f"{time.strftime('%H:%M:%S')} "
        left = f" {self.greet}" if width >= 80 else " celery events"
        right = f"{chart} {rate}  {clock}" if width >= 50 else f"{rate} "
        line = f"{left}{right.rjust(max(1, width - len(left)))}"[:width]
        self.safe_add_str(0, 0, line.ljust(width), curses.A_REVERSE | curses.A_BOLD)
        if self._head_height == 1:
            return
        self._draw_totals()
        columns = display.task_columns(width)
        names = ("UUID", "TASK", "WORKER", "TIME", "STATE")
        head = display.workers_head(width) if self.shows_workers else display.row(columns, *names)
        self.safe_add_str(2, 0, head.ljust(width), curses.A_BOLD | curses.A_UNDERLINE)

    def _draw_totals(self) -> None:
        known, alive = len(self.state.workers), len(self.workers)
        x = 1
        marks = [f"workers {alive}/{known}", f"events {self.state.event_count}"]
        marks += [f"state: {self.only_state}"] if self.only_state else []
        marks += [f"filter: {self.only_text}"] if self.only_text else []
        marks += ["PAUSED"] if self.is_paused else []
        for mark in marks:
            self.safe_add_str(1, x, mark, curses.A_BOLD if mark == "PAUSED" else 0)
            x += len(mark) + 2
        for state, text in self._totals:
            self.safe_add_str(1, x, text, self.state_colors.get(state, 0))
            x += len(text) + 2

    def _draw_tasks(self) -> None:
        top = self._head_height
        for lineno, (_, task) in enumerate(self._rows[: self.limit]):
            self.display_task_row(top + lineno, task)
        if not self._rows:
            hint = "No tasks match." if self.only_text or self.only_state else self._hint()
            self.safe_add_str(top + 1, 2, hint, curses.A_DIM)

    def _hint(self) -> str:
        if self.state.tasks or not self.workers:
            return "Waiting for events ..."
        return "No events of tasks.  `celery control enable_events` makes workers send them, or their option -E."

    def _draw_workers(self) -> None:
        now = time.time()
        workers = sorted(self.state.workers.values(), key=lambda worker: str(worker.hostname))
        for lineno, worker in enumerate(workers[: self.limit]):
            color = self.state_colors.get(states.SUCCESS if worker.alive else states.FAILURE, 0)
            line = display.worker_row(worker, self.display_width, now)
            self.safe_add_str(self._head_height + lineno, 0, line, color)

    def _draw_foot(self) -> None:
        height, width = self.screen_height, self.display_width
        if not self._foot_height:
            return
        foot = self.notice or f"{self.help_title}{self.help}"
        if len(foot) > width and not self.notice:
            foot = "h:help q:quit i:info t:traceback c:revoke"
        self.safe_add_str(height - 1, 0, foot, curses.A_BOLD if self.notice else curses.A_DIM)
        if self._foot_height == 1:
            return
        self.safe_add_str(height - 4, 0, ("─" if self.has_unicode else "-") * width, curses.A_DIM)
        self._draw_labelled(height - 3, self.selected_str, self._selection_line())
        self._draw_labelled(height - 2, self.online_str, ", ".join(self.workers) or "none")

    def _draw_labelled(self, y: int, label: str, text: str) -> None:
        self.safe_add_str(y, 0, label, curses.A_BOLD)
        self.safe_add_str(y, len(label), text)

    def _selection_line(self) -> str:
        task = self._selected()
        if task is None:
            return "none; j or ↓ selects" if self.has_unicode else "none; j selects"
        info = task.info(("args", "kwargs", "result", "exception", "runtime", "eta", "retries"))
        return f"{task.name} " + ", ".join(f"{name}: {value}" for name, value in info.items())

    # -- the selection

    def _selected(self) -> Any:
        return self.state.tasks.get(self.selected_task) if self.selected_task else None

    def find_position(self) -> int:
        """Return the place of the selected task among those that match; 0 where there is none."""
        for position, (uuid, _) in enumerate(self._matching()):
            if uuid == self.selected_task:
                return position
        return 0

    def _keep_selection_in_sight(self) -> None:
        if self.selected_task is None:
            self._offset = 0
            return
        self.selected_position = self.find_position()
        self._offset = min(self._offset, self.selected_position)
        self._offset = max(self._offset, self.selected_position - self.limit + 1)

    def move_selection_up(self) -> None:
        self.move_selection(-1)

    def move_selection_down(self) -> None:
        self.move_selection(1)

    def move_selection(self, direction: int = 1) -> None:
        """Select the task so many places further down."""
        ids = [uuid for uuid, _ in self._matching()]
        if not ids:
            return
        position = self.find_position() + direction if self.selected_task in ids else 0
        self.selected_position = min(max(0, position), len(ids) - 1)
        self.selected_task = ids[self.selected_position]

    # -- keys

    def handle_keypress(self) -> None:
        """Wait a moment for a key and do what it stands for."""
        try:
            key = self.win.get_wch()
        except curses.error:  # none came
            return
        movements = {
            curses.KEY_NPAGE: self.limit,
            curses.KEY_PPAGE: -self.limit,
            curses.KEY_END: len(self.state.tasks),
            curses.KEY_HOME: -len(self.state.tasks),
            "G": len(self.state.tasks),
            "g": -len(self.state.tasks),
        }
        if key == curses.KEY_RESIZE:
            curses.update_lines_cols()
        elif key in movements:
            self.move_selection(movements[key])
        else:
            letter = self.keyalias.get(key, "") if isinstance(key, int) else key.upper().replace("\r", "\n")
            handler = self.keymap.get(letter)
            if handler:
                handler()

    def quit(self) -> None:
        self.is_running = False

    def pause(self) -> None:
        self.is_paused = not self.is_paused

    def switch_view(self) -> None:
        self.shows_workers = not self.shows_workers

    def next_filter(self) -> None:
        """Show tasks in the next of the states only."""
        self.only_state = FILTERS[(FILTERS.index(self.only_state) + 1) % len(FILTERS)]

    def ask_for_text(self) -> None:
        """Ask for a text, and show tasks that have it; an empty one shows all."""
        self.only_text = self._ask("Show only tasks with: ") or ""

    def show_keys(self) -> None:
        self._show("Keys", *KEYS)

    # -- about the selected task

    def selection_info(self) -> None:
        """Show all that is known of the task."""
        task = self._selected()
        if task is not None:
            self.alert(lambda width: display.lines_of(display.details(task), width), f"Task {task.uuid}")

    def selection_traceback(self) -> None:
        task = self._selected()
        if task is not None:
            self._show(f"Traceback of {task.uuid}", ("", task.traceback or f"None: its state is {task.state}."))

    def selection_result(self) -> None:
        """Show the result as the result store has it."""
        task = self._selected()
        if task is None:
            return
        result = self.app.AsyncResult(task.uuid)
        try:
            state, value = result.state, result.result if result.ready() else "not ready yet"
        except Exception as exc:  # whatever the store says
            state, value = "?", f"{type(exc).__name__}: {exc}"
        self._show(f"Result of {task.uuid}", ("state", str(state)), ("result", repr(value)))

    def selection_rate_limit(self) -> None:
        """Ask for a rate limit and give it to all workers."""
        task = self._selected()
        if task is None or not task.name:
            return
        limit = self._ask(f"Rate limit of {task.name} (10/m, 0 for none): ")
        if limit:
            self._tell_workers("rate_limit", task.name, limit)

    def revoke_selection(self) -> None:
        task = self._selected()
        if task is not None and self._ask(f"Revoke {task.name}[{task.uuid}]? (y/n) ").lower() == "y":
            self._tell_workers("revoke", task.uuid)

    def terminate_selection(self) -> None:
        """End the task's process, where it runs."""
        task = self._selected()
        if task is not None and self._ask(f"Terminate {task.name}[{task.uuid}]? (y/n) ").lower() == "y":
            self._tell_workers("terminate", task.uuid)

    def _tell_workers(self, command: str, *args: Any) -> None:
        self.notice = "Asking the workers ..."
        self.draw()
        try:
            reply = getattr(self.app.control, command)(*args, reply=True)
        except Exception as exc:  # the broker is away, or worse
            self._show("Not sent", ("error", f"{type(exc).__name__}: {exc}"))
        else:
            self.alert_remote_control_reply(reply)
        finally:
            self.notice = ""

    def alert_remote_control_reply(self, reply: Any) -> None:
        """Show what the workers answered."""
        answers = [(name, answer) for replies in reply or () for name, answer in replies.items()]
        pairs = [("", f"{name}: {answer.get('error') or answer.get('ok', answer)}") for name, answer in answers]
        self._show("Replies", *(pairs or [("", "No worker answered.")]))


def evtop(app: Any = None) -> None:
    """Show the cluster on this terminal until the user has enough."""
    app = app_or_default(app)
    state = app.events.State()
    monitor = CursesMonitor(state, app)

    def on_event(event: dict[str, Any]) -> None:
        state.event(event)
        monitor.notice = ""
        if event["type"] in ("task-succeeded", "task-failed"):
            monitor.pace.count()

    def say(text: str) -> None:
        monitor.notice = " ".join(text.split())

    capture = threading.Thread(
        target=capture_for_ever, args=(app, {"*": on_event}, say), daemon=True, name="celery.events"
    )
    monitor.init_screen()
    capture.start()
    try:
        while monitor.is_running:
            monitor.draw()
            monitor.handle_keypress()
    except KeyboardInterrupt:
        pass
    finally:
        monitor.resetscreen()
