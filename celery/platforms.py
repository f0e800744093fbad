"""What differs between operating systems: signals, users, daemons, pidfiles, titles."""

from __future__ import annotations

import atexit
import errno
import math
import os
import signal as _signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .exceptions import SecurityError, SecurityWarning

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

EX_OK = getattr(os, "EX_OK", 0)
EX_FAILURE = 1
EX_UNAVAILABLE = getattr(os, "EX_UNAVAILABLE", 69)
EX_USAGE = getattr(os, "EX_USAGE", 64)
EX_CANTCREAT = getattr(os, "EX_CANTCREAT", 73)

SYSTEM = os.uname().sysname if hasattr(os, "uname") else "Windows"
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"

DAEMON_WORKDIR = "/"

#: a new file or none; ``O_NOFOLLOW`` is added where files are opened
PIDFILE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY
#: rw-r--r--
PIDFILE_MODE = 0o644

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def pyimplementation() -> str:
    """Return the name of the Python that runs us: ``CPython``, ``PyPy 7.3.11``."""
    import platform

    name = platform.python_implementation()
    if name == "PyPy":  # pragma: no cover
        version = sys.pypy_version_info  # type: ignore[attr-defined]  # there on PyPy
        return f"{name} {version.major}.{version.minor}.{version.micro}"
    return name


# -- pidfiles


class LockFailed(Exception):
    """The pidfile cannot be made."""


class Pidfile:
    """A file with the number of the process that holds it; as a context manager it is acquired and released."""

    path: str | None = None

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def acquire(self) -> Pidfile:
        """Make the file.

        Raises:
            LockFailed: it is there, or cannot be made.
        """
        try:
            self.write_pid()
        except FileExistsError as error:
            raise LockFailed(str(error)) from error
        except OSError as error:
            raise LockFailed(f"Cannot write the pidfile {self._path}: {_reason(error)}.") from error
        return self

    __enter__ = acquire

    def is_locked(self) -> bool:
        """Say whether the file is there."""
        return os.path.lexists(self._path)

    def release(self, *args: Any) -> None:
        """Remove the file."""
        self.remove()

    __exit__ = release

    @property
    def _path(self) -> str:
        assert self.path is not None
        return self.path

    def read_pid(self) -> int | None:
        """Return the number in the file, or ``None`` if there is no file.

        Raises:
            ValueError: there is something else in it, or nothing yet.
        """
        try:
            with open(self._path) as file:
                line = file.readline()
        except FileNotFoundError:
            return None
        if not line.endswith("\n"):
            # the line end is written last, so somebody is at it still
            raise ValueError(f"Partial or invalid pidfile {self._path}")
        try:
            return int(line.strip())
        except ValueError:
            raise ValueError(f"pidfile {self._path} contents invalid: {line.strip()!r}") from None

    def remove(self) -> None:
        """Remove the file if it is there and we may."""
        with ignore_errno(errno.ENOENT, errno.EACCES):
            os.unlink(self._path)

    def remove_if_stale(self) -> bool:
        """Remove the file if its process is gone or is this one; say whether there is none now."""
        try:
            pid = self.read_pid()
        except OSError as error:  # a directory, or not ours to read
            raise LockFailed(f"Cannot read the pidfile {self._path}: {_reason(error)}.") from error
        except ValueError:
            print("Broken pidfile found - Removing it.", file=sys.stderr)
            self.remove()
            return True
        if not pid or pid == os.getpid():
            self.remove()
            return True
        if not _process_exists(pid):
            print("Stale pidfile exists - Removing it.", file=sys.stderr)
            self.remove()
            return True
        return False

    def write_pid(self) -> None:
        """Make the file; it must not be there, not even as a link."""
        content = f"{os.getpid()}\n"
        fd = os.open(self._path, PIDFILE_FLAGS | _NOFOLLOW, PIDFILE_MODE)
        try:
            with open(fd, "w") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
        except OSError:  # a full disk; half a pidfile would only mislead
            self.remove()
            raise
        with open(self._path) as written:
            if written.read() != content:
                raise LockFailed(f"The pidfile {self._path} holds something else than was written: who else uses it?")


PIDFile = Pidfile


def _reason(error: OSError) -> str:
    return "no such directory" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's, but alive
    return True


def create_pidlock(pidfile: str) -> Pidfile:
    """Make a pidfile that is removed at exit.

    Where a living process holds it, this tells so and exits with ``EX_CANTCREAT``.
    """
    pidlock = _acquired(pidfile)
    atexit.register(_release_if_ours, pidlock, os.getpid())
    return pidlock


def _acquired(pidfile: str) -> Pidfile:
    pidlock = Pidfile(pidfile)
    if pidlock.is_locked() and not pidlock.remove_if_stale():
        holder = f"Seems we're already running? (pid: {pidlock.read_pid()})"
        print(f"ERROR: Pidfile ({pidlock.path}) already exists.\n{holder}", file=sys.stderr)
        raise SystemExit(EX_CANTCREAT)
    return pidlock.acquire()


def _release_if_ours(pidlock: Pidfile, owner: int) -> None:
    """Remove the file at the end of the process that made it; a forked child leaves it alone."""
    if os.getpid() == owner:
        pidlock.release()


# -- files


def fd_by_path(paths: Iterable[str]) -> list[int]:
    """Return the open descriptors of the files at ``paths``."""
    wanted = set()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        wanted.add((status.st_dev, status.st_ino))
    return [fd for fd in _open_fds() if _identity(fd) in wanted]


def _open_fds() -> Iterable[int]:
    """Return the descriptors that are open, or all there may be where the system does not tell."""
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return range(min(get_fdmax(2048), 65536))


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def get_fdmax(default: Any = None) -> Any:
    """Return the highest number of descriptors this process may have, or ``default`` where there is no limit."""
    try:
        import resource
    except ImportError:  # not on this system
        return default
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default if limit == resource.RLIM_INFINITY else limit


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close all descriptors but those of ``keep`` (numbers or files)."""
    kept = sorted({fd for fd in map(_maybe_fileno, keep or ()) if fd is not None})
    low = 0
    for fd in [*kept, get_fdmax(2048)]:
        if low < fd:  # an empty range from 0 closes everything, where Python asks the system for it
            os.closerange(low, fd)
        low = fd + 1


def _maybe_fileno(file: Any) -> int | None:
    if isinstance(file, int):
        return file
    try:
        return file.fileno()  # type: ignore[no-any-return]
    except (AttributeError, OSError, ValueError):  # closed, or no file at all
        return None


def isatty(fh: Any) -> Any:
    """Say whether ``fh`` is a terminal; ``None`` where that makes no sense."""
    try:
        return fh.isatty()
    except AttributeError:
        return None


# -- daemons


class DaemonContext:
    """Detaches the process from its terminal while it is open.

    ``after_chdir`` is called in the daemon, before standard files are redirected.  With ``fake`` nothing forks.
    """

    _is_open = False

    def __init__(
        self,
        pidfile: str | None = None,
        workdir: str | None = None,
        umask: int | str | None = None,
        fake: bool = False,
        after_chdir: Callable[[], Any] | None = None,
        after_forkers: bool = True,
        **kwargs: Any,
    ) -> None:
        # an octal number where it is text, as in shells
        self.umask = int(umask, 8) if isinstance(umask, str) else umask
        self.workdir = workdir or DAEMON_WORKDIR
        self.fake = fake
        self.after_chdir = after_chdir
        self.after_forkers = after_forkers
        self.stdfds = (sys.stdin, sys.stdout, sys.stderr)

    def redirect_to_null(self, fd: int | None) -> None:
        """Have ``fd`` lead nowhere."""
        if fd is not None:
            dest = os.open(os.devnull, os.O_RDWR)
            os.dup2(dest, fd)
            if dest != fd:
                os.close(dest)

    def open(self) -> None:
        if self._is_open:
            return
        if not self.fake:
            self._detach()
        os.chdir(self.workdir)
        if self.umask is not None:
            os.umask(self.umask)
        if self.after_chdir:
            self.after_chdir()
        if not self.fake:
            self._close_inherited()
        self._is_open = True

    __enter__ = open

    def close(self, *args: Any) -> None:
        self._is_open = False

    __exit__ = close

    def _detach(self) -> None:
        """Fork twice: the child leads a session without terminal, its child can never get one."""
        if os.fork():
            os._exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)

    def _close_inherited(self) -> None:
        # log files that are open already stay open, and so do sockets of children (after_forkers)
        from celery.utils.log import iter_open_logger_fds

        keep: list[Any] = [*self.stdfds, *iter_open_logger_fds()]
        if self.after_forkers:
            keep += _multiprocessing_fds()
        keep += fd_by_path(["/dev/urandom"])
        close_open_fds(keep)
        for file in self.stdfds:
            self.redirect_to_null(_maybe_fileno(file))


def _multiprocessing_fds() -> list[int]:
    """Return the descriptors that billiard's tracker of semaphores holds."""
    tracker = sys.modules.get("billiard.semaphore_tracker")
    fd = getattr(getattr(tracker, "_semaphore_tracker", None), "_fd", None)
    return [fd] if isinstance(fd, int) else []


def detached(
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: int | str = 0o077,
    workdir: str | None = None,
    fake: bool = False,
    **opts: Any,
) -> DaemonContext:
    """Return a context to detach in, as user ``uid`` and group ``gid``.

    That log file and pidfile can be made is checked while a terminal is there to complain on.  Upstream's
    default of ``umask`` is 0, with which everybody could write these files.

    Raises:
        RuntimeError: this system cannot detach.
    """
    if not hasattr(os, "fork") or IS_WINDOWS:
        raise RuntimeError("This platform does not support detach.")
    workdir = os.getcwd() if workdir is None else workdir
    signals.reset("SIGCLD")  # or the shell's setting would reap our children
    maybe_drop_privileges(uid=uid, gid=gid)

    def check_files() -> None:
        if logfile:
            with open(logfile, "a"):
                pass
        if pidfile:
            _acquired(pidfile).release()  # that it can be made is all we want to know

    return DaemonContext(umask=umask, workdir=workdir, fake=fake, after_chdir=check_files)


# -- users and groups


def parse_uid(uid: Any) -> int:
    """Return the number of a user given by name or number.

    Raises:
        KeyError: there is no such user.
    """
    try:
        return int(uid)
    except ValueError:
        import pwd

        try:
            return pwd.getpwnam(uid).pw_uid
        except KeyError:
            raise KeyError(f"User does not exist: {uid}") from None


def parse_gid(gid: Any) -> int:
    """Return the number of a group given by name or number.

    Raises:
        KeyError: there is no such group.
    """
    try:
        return int(gid)
    except ValueError:
        import grp

        try:
            return grp.getgrnam(gid).gr_gid
        except KeyError:
            raise KeyError(f"Group does not exist: {gid}") from None


def _setgroups_hack(groups: list[int]) -> None:
    """Set as many of ``groups`` as the system takes, which does not always say how many that is."""
    while True:
        try:
            os.setgroups(groups)
            return
        except ValueError:
            if not groups:
                raise
        except OSError as error:
            if error.errno != errno.EINVAL or not groups:
                raise
        groups = groups[:-1]


def setgroups(groups: Iterable[int]) -> None:
    """Set the supplementary groups, as many as the system takes."""
    groups = list(groups)
    try:
        max_groups = os.sysconf("SC_NGROUPS_MAX")
    except (OSError, ValueError):
        max_groups = len(groups)
    try:
        _setgroups_hack(groups[:max_groups])
    except PermissionError:
        # fine if they are what we have
        if any(group not in groups for group in os.getgroups()):
            raise


def initgroups(uid: int, gid: int) -> None:
    """Set the supplementary groups to those of the user ``uid``, and ``gid``."""
    import pwd

    username = pwd.getpwuid(uid)[0]
    if hasattr(os, "initgroups"):
        os.initgroups(username, gid)
        return
    import grp

    setgroups([group.gr_gid for group in grp.getgrall() if username in group.gr_mem])


def setgid(gid: Any) -> None:
    """Set the group, given by name or number."""
    os.setgid(parse_gid(gid))


def setuid(uid: Any) -> None:
    """Set the user, given by name or number."""
    os.setuid(parse_uid(uid))


def maybe_drop_privileges(uid: Any = None, gid: Any = None) -> None:
    """Become user ``uid`` and group ``gid``, for good; without ``gid`` the group is the user's.

    Raises:
        SecurityError: privileges could be had back.
    """
    if IS_WINDOWS:
        return
    uid = None if uid is None or uid == "" else parse_uid(uid)
    gid = None if gid is None or gid == "" else parse_gid(gid)
    if os.geteuid() and (uid is not None or gid is not None):
        # no need to set what we are already, and no right to set anything else
        _check_identity(uid, gid)
        return
    if uid is not None:
        _become(uid, gid)
    elif gid is not None:
        setgid(gid)


def _check_identity(uid: int | None, gid: int | None) -> None:
    if uid is not None and uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"Only the superuser may become user {uid}; this is user {os.geteuid()}")
    if gid is not None and gid != os.getegid() and gid not in os.getgroups():
        raise PermissionError(errno.EPERM, f"Only the superuser may become group {gid}; this is group {os.getegid()}")


def _become(uid: int, gid: int | None) -> None:
    """Set groups first: once the user is set there is no right to do it."""
    import pwd

    if gid is None:
        gid = pwd.getpwuid(uid).pw_gid
    setgid(gid)
    try:
        initgroups(uid, gid)
    except KeyError:  # a number without an entry has no other groups
        setgroups([gid])
    setuid(uid)
    _verify_dropped(uid)


def _verify_dropped(uid: int) -> None:
    if uid == 0:
        return
    try:
        setuid(0)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        return  # as it must be
    raise SecurityError("non-root user able to restore privileges after setuid.")


def _has_weak_serializer(accept_content: Iterable[str]) -> bool:
    return bool({"pickle", "application/x-python-serialize"} & set(accept_content or ()))


def check_privileges(accept_content: Iterable[str]) -> None:
    """Complain of a worker with the rights of the superuser.

    Raises:
        SecurityError: it also accepts pickle, with which any sender becomes superuser; ``C_FORCE_ROOT`` overrules.
    """
    if os.environ.get("C_FORCE_ROOT") or not hasattr(os, "getuid"):
        return
    uid, euid, gid, egid = os.getuid(), os.geteuid(), os.getgid(), os.getegid()
    if 0 not in (uid, euid) and not _is_privileged_group(gid, egid):
        return
    user = f"User information: uid={uid} euid={euid} gid={gid} egid={egid}"
    if _has_weak_serializer(accept_content):
        raise SecurityError(
            "Running a worker with superuser privileges when the worker accepts messages serialized with pickle is a "
            "very bad idea: whoever can send a message would be superuser here.\n\n"
            "Run it as another user (--uid), or take pickle out of accept_content. "
            f"To run it like this all the same, set the C_FORCE_ROOT environment variable.\n\n{user}"
        )
    warnings.warn(
        SecurityWarning(
            "You're running the worker with superuser privileges: this is absolutely not recommended!\n\n"
            f"Please specify a different user using the --uid option.\n\n{user}\n"
        ),
        stacklevel=2,
    )


def _is_privileged_group(*gids: int) -> bool:
    """Say whether one of the groups is that of administrators."""
    import grp

    for gid in gids:
        try:
            if grp.getgrgid(gid).gr_name in ("sudo", "wheel"):
                return True
        except KeyError:  # a number without a name, as in containers
            continue
    return False


# -- signals


class Signals:
    """Signal handlers by name: ``signals["INT"] = handler``, with or without ``SIG``.

    Names that this system does not have are passed over, as are handlers set from another thread than the main one.
    """

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def arm_alarm(self, seconds: float) -> None:
        """Have SIGALRM sent in that many seconds."""
        if hasattr(_signal, "setitimer"):
            _signal.setitimer(_signal.ITIMER_REAL, seconds)
        else:  # pragma: no cover
            _signal.alarm(math.ceil(seconds))

    def reset_alarm(self) -> int:
        """Call off the alarm; return how many seconds were left."""
        return _signal.alarm(0)

    def supported(self, name: str) -> bool:
        """Say whether this system has the signal."""
        try:
            self.signum(name)
        except AttributeError:
            return False
        return True

    def signum(self, name: Any) -> int:
        """Return the number of a signal.

        Raises:
            AttributeError: this system has none of that name.
            TypeError: it is no name in capitals.
        """
        if isinstance(name, int):
            return name
        if not isinstance(name, str) or not name.isupper():
            raise TypeError("signal name must be uppercase string.")
        number: int = getattr(_signal, name if name.startswith("SIG") else "SIG" + name)
        return number

    def reset(self, *signal_names: str) -> None:
        """Set the system's handlers."""
        self.update((name, self.default) for name in signal_names)

    def ignore(self, *names: str) -> None:
        self.update((name, self.ignored) for name in names)

    def __getitem__(self, name: str) -> Any:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: str, handler: Any) -> None:
        try:
            _signal.signal(self.signum(name), handler)
        except (AttributeError, ValueError):  # not on this system, or not in this thread
            pass

    def update(self, _d_: Any = None, **sigmap: Any) -> None:
        """Set handlers from a mapping, pairs, or keywords."""
        for name, handler in dict(_d_ or {}, **sigmap).items():
            self[name] = handler


signals = Signals()
get_signal = signals.signum
install_signal_handler = signals.__setitem__
reset_signal = signals.reset
ignore_signal = signals.ignore

#: signal → name
SIGMAP: Mapping[Any, str] = {number: number.name for number in _signal.Signals}


def signal_name(signum: int) -> str:
    """Return ``"KILL"`` for 9."""
    return SIGMAP[signum].removeprefix("SIG")


def set_pdeathsig(name: str) -> None:
    """Have the system send us this signal when our parent dies; Linux only, nothing happens elsewhere."""
    try:
        number = signals.signum(name)
    except (AttributeError, TypeError):
        return
    if SYSTEM != "Linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(number), 0, 0, 0)
    except (OSError, AttributeError):  # a C library without it
        pass


# -- titles


def strargv(argv: list[str]) -> str:
    """Return the arguments, without the program."""
    return " ".join(argv[1:]) if len(argv) > 1 else ""


def set_process_title(progname: str, info: str | None = None) -> str:
    """Have tools such as ``ps`` show ``[progname] info``, if setproctitle is installed; return that text."""
    title = f"[{progname}]"
    if info:
        title = f"{title} {info}"
    setproctitle = _setproctitle()
    if setproctitle is not None:
        setproctitle.setproctitle(title)
    return title


def _setproctitle() -> Any:
    try:
        import setproctitle
    except ImportError:
        return None
    return setproctitle


def set_mp_process_title(progname: str, info: str | None = None, hostname: str | None = None) -> str:
    """Set a title that names host and pool process; ``NOSETPS`` switches it off."""
    if os.environ.get("NOSETPS"):
        return ""
    if hostname:
        progname = f"{progname}: {hostname}"
    billiard = sys.modules.get("billiard.process") or sys.modules.get("multiprocessing.process")
    name = billiard.current_process().name if billiard else "MainProcess"
    return set_process_title(f"{progname}:{name}", info=info)


# -- errors of the system


def get_errno_name(n: Any) -> int:
    """Return the number of an error given by name or number."""
    return getattr(errno, n) if isinstance(n, str) else n  # type: ignore[no-any-return]


@contextmanager
def ignore_errno(*errnos: int | str, **kwargs: Any) -> Iterator[None]:
    """Pass over errors of the system with these numbers or names; ``types`` are the exceptions that are looked at."""
    types = kwargs.get("types") or (OSError,)
    numbers = [get_errno_name(number) for number in errnos]
    try:
        yield
    except types as error:
        if getattr(error, "errno", None) not in numbers:
            raise
