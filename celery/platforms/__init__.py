"""What differs between operating systems: signals, users, daemons, pidfiles, titles.

This is the door; each theme has a file.
"""

from .daemons import DAEMON_WORKDIR, DaemonContext, detached
from .files import close_open_fds, fd_by_path, get_fdmax, isatty
from .pidfiles import PIDFILE_FLAGS, PIDFILE_MODE, LockFailed, PIDFile, Pidfile, create_pidlock
from .signalling import (
    SIGMAP,
    Signals,
    get_signal,
    ignore_signal,
    install_signal_handler,
    reset_signal,
    set_pdeathsig,
    signal_name,
    signals,
)
from .system import (
    EX_CANTCREAT,
    EX_FAILURE,
    EX_OK,
    EX_UNAVAILABLE,
    EX_USAGE,
    IS_WINDOWS,
    SYSTEM,
    IS_macOS,
    get_errno_name,
    ignore_errno,
    pyimplementation,
)
from .titles import set_mp_process_title, set_process_title
from .titles import strargv as strargv
from .users import check_privileges as check_privileges
from .users import (
    initgroups,
    maybe_drop_privileges,
    parse_gid,
    parse_uid,
    setgid,
    setgroups,
    setuid,
)

__all__ = (
    "EX_OK",
    "EX_FAILURE",
    "EX_UNAVAILABLE",
    "EX_USAGE",
    "SYSTEM",
    "IS_macOS",
    "IS_WINDOWS",
    "SIGMAP",
    "pyimplementation",
    "LockFailed",
    "get_fdmax",
    "Pidfile",
    "create_pidlock",
    "close_open_fds",
    "DaemonContext",
    "detached",
    "parse_uid",
    "parse_gid",
    "setgroups",
    "initgroups",
    "setgid",
    "setuid",
    "maybe_drop_privileges",
    "signals",
    "signal_name",
    "set_process_title",
    "set_mp_process_title",
    "get_errno_name",
    "ignore_errno",
    "fd_by_path",
    "isatty",
)
