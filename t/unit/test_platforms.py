import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from celery import platforms
from celery.exceptions import SecurityError, SecurityWarning
from celery.platforms import (
    EX_CANTCREAT,
    DaemonContext,
    LockFailed,
    Pidfile,
    check_privileges,
    close_open_fds,
    create_pidlock,
    detached,
    fd_by_path,
    get_errno_name,
    get_fdmax,
    ignore_errno,
    isatty,
    maybe_drop_privileges,
    parse_gid,
    parse_uid,
    set_mp_process_title,
    set_pdeathsig,
    set_process_title,
    signal_name,
    signals,
    strargv,
)

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can become somebody else")


def run(code, **options):
    """Run ``code`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, **options
    )


# -- pidfiles


@pytest.fixture
def path(tmp_path):
    return tmp_path / "worker.pid"


def test_a_pidfile_is_there_while_it_is_held(path):
    pidfile = Pidfile(str(path))
    with pidfile:
        assert path.read_text() == f"{os.getpid()}\n"
        assert (pidfile.read_pid(), pidfile.is_locked()) == (os.getpid(), True)
        with pytest.raises(LockFailed, match="File exists"):
            Pidfile(str(path)).acquire()
    assert not path.exists()
    assert Pidfile(str(path)).read_pid() is None
    pidfile.release()


@pytest.mark.parametrize("content", ["", "nope\n", "12", "99999999\n", "9" * 30 + "\n"])
def test_a_pidfile_that_is_broken_or_stale_is_replaced(path, content, capsys):
    path.write_text(content)
    pidlock = create_pidlock(str(path))
    assert pidlock.read_pid() == os.getpid()
    pidlock.release()
    assert "pidfile" in capsys.readouterr().err


def test_a_pidfile_of_ours_is_taken_over(path):
    path.write_text(f"{os.getpid()}\n")
    create_pidlock(str(path)).release()


def test_a_pidfile_of_a_living_process_is_respected(path, capsys):
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(SystemExit) as caught:
        create_pidlock(str(path))
    assert caught.value.code == EX_CANTCREAT
    assert f"already running? (pid: {os.getppid()})" in capsys.readouterr().err
    assert path.read_text() == f"{os.getppid()}\n"


def test_a_link_is_never_written_through(path, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("root:x:0:0\n")
    path.symlink_to(precious)
    with pytest.raises(LockFailed):
        Pidfile(str(path)).acquire()
    create_pidlock(str(path)).release()
    assert precious.read_text() == "root:x:0:0\n"
    path.symlink_to(tmp_path / "not there")
    with pytest.raises(LockFailed):
        Pidfile(str(path)).acquire()
    assert not (tmp_path / "not there").exists()


def test_a_pidfile_that_cannot_be_written_says_why(tmp_path):
    with pytest.raises(LockFailed, match=r"Cannot write the pidfile .*/no/x.pid: no such directory\."):
        create_pidlock(str(tmp_path / "no" / "x.pid"))
    with pytest.raises(LockFailed, match=r"Cannot write the pidfile .*: it is a directory\."):
        create_pidlock(str(tmp_path))


def test_a_pidfile_goes_with_its_process_but_not_with_its_children(path):
    code = (
        "import os, sys; from celery.platforms import create_pidlock\n"
        f"create_pidlock({str(path)!r})\n"
        "pid = os.fork()\n"
        "if not pid: sys.exit()\n"
        "os.waitpid(pid, 0)\n"
        f"print(os.path.exists({str(path)!r}))"
    )
    assert run(code).stdout == "True\n"
    assert not path.exists()


# -- files


def test_open_files_are_found_by_path(tmp_path):
    file = tmp_path / "file"
    with file.open("w") as opened:
        assert opened.fileno() in fd_by_path([str(file), str(tmp_path / "not there")])
    assert fd_by_path([str(file)]) == []


def test_all_files_but_some_are_closed():
    code = (
        "import os; from celery.platforms import close_open_fds\n"
        "kept, closed = os.pipe()\n"
        "close_open_fds([0, 1, 2, kept])\n"
        "os.fstat(kept)\n"
        "try: os.fstat(closed)\n"
        "except OSError: print('closed')"
    )
    assert run(code).stdout == "closed\n"
    assert callable(close_open_fds)


def test_descriptors_have_a_limit():
    assert get_fdmax(5) > 0


def test_terminals_are_told_from_files(tmp_path):
    with (tmp_path / "file").open("w") as file:
        assert isatty(file) is False
    assert isatty(None) is None


# -- daemons

DAEMON = """
import os, sys
from celery.platforms import detached
with detached(workdir={workdir!r}, logfile={logfile!r}, pidfile={pidfile!r}, umask={umask!r}):
    with open({out!r}, "w") as out:
        print(os.getsid(0) != {session}, os.getcwd(), os.getppid() != {session}, file=out)
        print(os.readlink("/proc/self/fd/1"), oct(os.stat({out!r}).st_mode & 0o777), file=out)
        print(open({pidfile!r}).read() == f"{{os.getpid()}}\\n", oct(os.stat({pidfile!r}).st_mode & 0o777), file=out)
    os.rename({out!r}, {out!r} + ".done")
"""


def wait_until(claim):
    import time

    deadline = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(path):
    wait_until(path.exists)
    return path.read_text().split()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="reads /proc")
def test_a_daemon_leaves_session_terminal_and_directory(tmp_path):
    options = {
        "workdir": str(tmp_path),
        "logfile": str(tmp_path / "log"),
        "pidfile": str(tmp_path / "pid"),
        "umask": "027",
        "out": str(tmp_path / "out"),
        "session": os.getsid(0),
    }
    done = run(DAEMON.format(**options))
    assert (done.returncode, done.stderr) == (0, "")
    assert wait_for(tmp_path / "out.done") == [
        *("True", str(tmp_path), "True", "/dev/null", "0o640"),
        *("True", "0o644"),  # a pidfile can be read by all, whatever the umask
    ]
    assert (tmp_path / "log").exists()
    wait_until(lambda: not (tmp_path / "pid").exists())


def test_a_fake_daemon_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pid, umask = os.getpid(), os.umask(0o022)
    calls = []
    try:
        context = DaemonContext(workdir="/", umask="077", fake=True, after_chdir=lambda: calls.append(os.getcwd()))
        with context:
            context.open()
            assert (os.getpid(), os.umask(0o077)) == (pid, 0o077)
    finally:
        os.umask(umask)
    assert calls == ["/"]


def test_files_of_daemons_are_private_unless_said_otherwise():
    assert detached(fake=True).umask == detached(fake=True, umask=None).umask == 0o077
    assert detached(fake=True, umask=0o022).umask == 0o022
    assert detached(fake=True, umask="022").umask == 0o022


def test_a_log_file_that_cannot_be_written_is_told_before_the_terminal_is_gone(tmp_path):
    context = detached(fake=True, logfile=str(tmp_path / "no" / "log"), workdir=str(tmp_path))
    before = os.getcwd(), os.umask(0o077)
    try:
        with pytest.raises(FileNotFoundError):
            context.open()
    finally:
        os.chdir(before[0])
        os.umask(before[1])


# -- users


def test_users_and_groups_are_known_by_name_and_number():
    assert parse_uid("root") == parse_uid("0") == parse_uid(0) == 0
    assert parse_gid("root") == parse_gid(0) == 0
    with pytest.raises(KeyError, match="User does not exist: nobody here"):
        parse_uid("nobody here")
    with pytest.raises(KeyError, match="Group does not exist: nobody here"):
        parse_gid("nobody here")


@needs_root
@pytest.mark.parametrize("arguments", ["uid='nobody'", "uid=54321, gid=54321"])
def test_privileges_are_dropped_for_good(arguments):
    code = (
        "import os; from celery.platforms import maybe_drop_privileges\n"
        f"maybe_drop_privileges({arguments})\n"
        "print(open('/proc/self/status').read())\n"
        "try: os.setuid(0)\n"
        "except PermissionError: print('for good')"
    )
    out = run(code).stdout
    status = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    assert "for good" in out
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert "0" not in status["Groups"].split()
    assert set(status["CapEff"].strip()) == {"0"}


@needs_root
def test_a_group_alone_is_set():
    code = "import os; from celery.platforms import maybe_drop_privileges; maybe_drop_privileges(gid=54321); print(os.getgid())"
    assert run(code).stdout == "54321\n"


@needs_root
def test_those_without_rights_cannot_become_others():
    code = (
        "import os; from celery.platforms import maybe_drop_privileges as drop\n"
        "drop(uid=54321, gid=54321)\n"
        "drop(uid=54321, gid=54321)\n"
        "try: drop(uid=0)\n"
        "except PermissionError as error: print(error)"
    )
    assert "Only the superuser may become user 0" in run(code).stdout


def test_without_user_and_group_nothing_is_dropped():
    before = os.getuid(), os.getgid(), os.getgroups()
    maybe_drop_privileges()
    assert before == (os.getuid(), os.getgid(), os.getgroups())


@needs_root
@pytest.mark.parametrize("accepted", [["pickle"], ["json", "application/x-python-serialize"]])
def test_the_superuser_may_not_accept_pickle(accepted, monkeypatch):
    monkeypatch.delenv("C_FORCE_ROOT", raising=False)
    with pytest.raises(SecurityError, match="C_FORCE_ROOT"):
        check_privileges(accepted)
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    check_privileges(accepted)


@needs_root
def test_the_superuser_is_warned(monkeypatch):
    monkeypatch.delenv("C_FORCE_ROOT", raising=False)
    with pytest.warns(SecurityWarning, match="--uid"):
        check_privileges(["json"])


# -- signals


@pytest.fixture
def usr1():
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_signals_are_known_by_name():
    assert signals.signum("TERM") == signals.signum("SIGTERM") == signals.signum(15) == signal.SIGTERM
    assert signal_name(9) == "KILL"
    assert platforms.SIGMAP[signal.SIGHUP] == "SIGHUP"
    assert signals.supported("INT")
    assert not signals.supported("NOPE")
    for bad in ("term", object()):
        with pytest.raises(TypeError, match="uppercase"):
            signals.signum(bad)


@pytest.mark.usefixtures("usr1")
def test_handlers_are_set_by_name():
    received = []
    signals["USR1"] = lambda number, frame: received.append(number)
    signal.raise_signal(signal.SIGUSR1)
    assert received == [signal.SIGUSR1]
    signals.ignore("USR1")
    assert signals["USR1"] is signals.ignored
    signals.update({"SIGUSR1": signals.default}, NOPE=signals.default)
    assert signals["USR1"] is signal.SIG_DFL
    signals.update(USR1=signals.ignored)
    signals.reset("USR1")
    assert signals["USR1"] is signals.default


def test_an_alarm_rings_unless_called_off():
    rung = []
    before = signals["ALRM"]
    signals["ALRM"] = lambda *args: rung.append(1)
    try:
        signals.arm_alarm(60)
        assert signals.reset_alarm() in (59, 60)
        signals.arm_alarm(0.001)
        ours, theirs = socket.socketpair()
        ours.settimeout(0.2)
        with ours, theirs, pytest.raises(TimeoutError):
            ours.recv(1)
    finally:
        signals["ALRM"] = before
    assert rung == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_child_dies_with_its_parent():
    code = (
        "import os, signal, time; from celery.platforms import set_pdeathsig\n"
        "reader, writer = os.pipe()\n"
        "if not os.fork():\n"
        "    if not os.fork():\n"
        "        set_pdeathsig('KILL')\n"
        "        os.write(writer, b'ready')\n"
        "        time.sleep(30)\n"
        "        os.write(writer, b'survived')\n"
        "    os.read(reader, 5)\n"
        "    os._exit(0)\n"
        "os.close(writer)\n"
        "os.wait()\n"
        "print(os.read(reader, 100))"
    )
    assert run(code).stdout == "b''\n"
    set_pdeathsig("NOPE")


# -- titles and errors


def test_titles_tell_program_and_process(monkeypatch):
    monkeypatch.setattr(platforms.titles, "_setproctitle", lambda: None)
    assert set_process_title("celeryd", info="worker") == "[celeryd] worker"
    assert set_mp_process_title("celeryd", info="x", hostname="w@h") == "[celeryd: w@h:MainProcess] x"
    monkeypatch.setenv("NOSETPS", "1")
    assert set_mp_process_title("celeryd") == ""
    assert strargv(["prog", "a", "b"]) == "a b"
    assert strargv(["prog"]) == ""


def test_titles_are_set_where_the_package_is_there(monkeypatch):
    titles = []
    package = type("setproctitle", (), {"setproctitle": staticmethod(titles.append)})
    monkeypatch.setitem(sys.modules, "setproctitle", package)
    set_process_title("celeryd")
    assert titles == ["[celeryd]"]


def test_errors_of_the_system_are_passed_over_by_name():
    with ignore_errno("ENOENT", errno.EACCES):
        os.stat("/no/such/file")
    with pytest.raises(IsADirectoryError), ignore_errno("ENOENT"):
        os.open("/", os.O_WRONLY)
    with pytest.raises(FileNotFoundError), ignore_errno("ENOENT", types=(ValueError,)):
        os.stat("/no/such/file")
    assert get_errno_name("ENOENT") == get_errno_name(errno.ENOENT) == errno.ENOENT


def test_the_python_is_named():
    assert platforms.pyimplementation()
    assert os.uname().sysname == platforms.SYSTEM
