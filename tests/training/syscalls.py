"""One system call of a child spoilt: killed at it, cut short in the middle of it, or answered with an error.

A small tracer (ptrace) for Linux on x86-64. The child is a fork of this process with one thread, so that a round costs
milliseconds; `strace --inject` would do the same with a start of Python each.
"""

import ctypes
import errno
import os
import platform
import signal
import sys
from dataclasses import dataclass

POSSIBLE = sys.platform == "linux" and platform.machine() == "x86_64"
TRACEME, CONT, GETREGS, SETREGS, SYSCALL, SETOPTIONS = 0, 7, 12, 13, 24, 0x4200
SYSGOOD, EXITKILL = 1, 0x100000
R10, RAX, RDX, RSI, RDI, ORIG = 7, 10, 12, 13, 14, 15
"""Places in `user_regs_struct`, which is 27 words."""
CREATE = os.O_CREAT
NAMES = {
    **{0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 8: "lseek", 18: "pwrite", 74: "fsync"},
    **{75: "fdatasync", 77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 217: "getdents"},
    **{257: "open", 258: "mkdir", 262: "stat", 263: "unlink", 264: "rename", 316: "rename", 332: "stat"},
}
"""System calls that touch files, by number."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_Registers = ctypes.c_ulonglong * 27


@dataclass(frozen=True)
class Spoil:
    """What is done to call number `at` (from 1) of those that touch files.

    Attributes:
        how: `kill` before it; `cut`: half of a write, then kill; `short`: half of a write is done, which is allowed; the name
            of an error (`ENOSPC`): it does nothing and answers that.
        at: 0 spoils nothing.
    """

    how: str = "none"
    at: int = 0


def traced(work, spoil=Spoil()):
    """Runs `work()` in a child. Returns its exit code (minus the signal that ended it) and the names of its calls that touch
    files, in order. A call that creates a file is named `create`."""
    child = os.fork()
    if not child:
        code = 101
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            code = work() or 0
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    _ptrace(SETOPTIONS, child, data=SYSGOOD | EXITKILL)
    return _follow(child, spoil)


def _follow(child, spoil):
    calls, entering, answer, pending = [], True, None, 0
    while True:
        _ptrace(SYSCALL, child, data=pending)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status), calls
        pending = os.WSTOPSIG(status)
        if pending != signal.SIGTRAP | 0x80:
            continue  # a signal of its own: passed on
        pending = 0
        registers = _registers(child)
        if entering:
            name = _name(registers)
            calls += [name] if name else []
            if name and len(calls) == spoil.at:
                answer = _enter(child, registers, name, spoil.how)
        elif answer is not None:
            _leave(child, registers, answer)
            answer = None
        entering = not entering


def _name(registers):
    name = NAMES.get(registers[ORIG])
    flags = registers[RDX] if registers[ORIG] == 257 else registers[RSI]
    return "create" if name == "open" and flags & CREATE else name


def _enter(child, registers, name, how):
    """What `_leave` is to do, or None."""
    if how == "kill":
        os.kill(child, signal.SIGKILL)
    elif how in ("cut", "short"):
        if name == "write":
            registers[RDX] = registers[RDX] // 2 or 1
            _ptrace(SETREGS, child, data=ctypes.addressof(registers))
        return "kill" if how == "cut" else None
    else:
        registers[ORIG] = 2**64 - 1  # no call at all
        _ptrace(SETREGS, child, data=ctypes.addressof(registers))
        return how
    return None


def _leave(child, registers, answer):
    if answer == "kill":
        os.kill(child, signal.SIGKILL)
        return
    registers[RAX] = 2**64 - getattr(errno, answer)
    _ptrace(SETREGS, child, data=ctypes.addressof(registers))


def _registers(child):
    registers = _Registers()
    _ptrace(GETREGS, child, data=ctypes.addressof(registers))
    return registers


def _ptrace(request, child, data=None):
    if _libc.ptrace(request, child, None, data) == -1 and ctypes.get_errno() != errno.ESRCH:
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")
