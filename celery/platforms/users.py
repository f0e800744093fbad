"""Users and groups: who we are, and becoming somebody with fewer rights."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterable
from typing import Any

from celery.exceptions import SecurityError, SecurityWarning

from .system import IS_WINDOWS


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


def check_may_become(uid: Any = None, gid: Any = None) -> None:
    """See that this process may become user ``uid`` and group ``gid``, and change nothing.

    Raises:
        KeyError: there is no such user or group.
        PermissionError: only the superuser may.
    """
    if not IS_WINDOWS:
        wanted = [None if value is None or value == "" else value for value in (uid, gid)]
        user = None if wanted[0] is None else parse_uid(wanted[0])
        group = None if wanted[1] is None else parse_gid(wanted[1])
        if os.geteuid():
            _check_identity(user, group)


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
