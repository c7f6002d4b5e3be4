"""Fences a process in: it can signal only what it has started, and so can all of that.

This is Landlock, of Linux 6.12 and later; it needs no rights and cannot be undone. Who is in a
fence within a fence cannot signal who is between the two; the other way round it goes. To signal
"all processes" means all within one's fence: so a whole tree, whatever became of its sessions and
parents, ends in one call, which nothing can outrun.

Imported for each run by an interpreter of its own, so it needs little else.
"""

import ctypes
import os

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every architecture
_SIGNALS, _SINCE = 2, 6  # LANDLOCK_SCOPE_SIGNAL, and the version of the interface that has it
_QUIET, _QUIET_SINCE = 1, 7  # what is denied is expected, and nothing for the audit log


def enter() -> bool:
    """Fence this process in; false where that cannot be, or where it has no effect.

    The caller has given up new privileges (PR_SET_NO_NEW_PRIVS).
    """
    outside = os.getppid()
    if _refused(outside) is not None:
        return False  # there is no telling whether the fence holds
    version = _call(_CREATE_RULESET, 0, 0, 1)
    if version < _SINCE:
        return False
    attributes = (ctypes.c_uint64 * 3)(0, 0, _SIGNALS)
    ruleset = _call(_CREATE_RULESET, ctypes.addressof(attributes), ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        return False
    try:
        fenced = _call(_RESTRICT_SELF, ruleset, _QUIET if version >= _QUIET_SINCE else 0) == 0
    finally:
        os.close(ruleset)
    return fenced and isinstance(_refused(outside), PermissionError)


def _refused(pid: int) -> OSError | None:
    """Return why a process cannot be signalled, if it cannot."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error
    return None


def _call(number: int, *arguments: int) -> int:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return int(syscall(*map(ctypes.c_long, (number, *arguments))))
