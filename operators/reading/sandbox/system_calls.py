"""Forbids system calls to the reading process (seccomp, Linux on x86-64).

Forbidden are: network, programs, processes, signals to others, changes of files and folders, and
opening a file for writing; they fail with EPERM. What was open before stays usable.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

# numbers of arch/x86/entry/syscalls/syscall_64.tbl of Linux
NETWORK = (41, 42, 43, 49, 50, 288)  # socket, connect, accept, bind, listen, accept4
PROGRAMS = (57, 58, 59, 322)  # fork, vfork, execve, execveat
OTHER_PROCESSES = (62, 101, 129, 200, 297, 310, 311, 312, 424, 434, 438)  # kill, ptrace, pidfd_...
FILES = (
    *(76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 132, 133, 188, 189, 190, 197, 198),
    *(199, 235, 258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 304, 316, 452),  # those with at
)
SYSTEM = (155, 161, 165, 166, 246, 248, 249, 250, 272, 298, 308, 320, 321, 323, 425, 426, 427)
ABSENT = (435, 437)  # clone3, openat2: their flags lie in memory; libc then takes clone, openat
CLONE, CLONE_THREAD = 56, 0x10000
OPEN = {2: 1, 257: 2}  # open, openat: index of the argument with the flags
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X86_64, X32 = 0xC000003E, 0x40000000
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
SET_SECCOMP, FILTER, NO_NEW_PRIVILEGES = 22, 2, 38  # of prctl


def forbid_system_calls() -> bool:
    """Install the filter for this process and its threads; False where it is not possible."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    filters = b"".join(struct.pack("HBBI", *each) for each in _filters())
    buffer = ctypes.create_string_buffer(filters, len(filters))
    program = ctypes.create_string_buffer(
        struct.pack("HP", len(filters) // 8, ctypes.addressof(buffer))
    )
    prctl = ctypes.CDLL(None).prctl
    return prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and prctl(SET_SECCOMP, FILTER, program) == 0


def _filters() -> list[tuple[int, int, int, int]]:
    """Instructions: code, jump if true, jump if false, operand."""
    made = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, X86_64),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, FAIL | errno.EPERM),
    ]
    for number in (*NETWORK, *PROGRAMS, *OTHER_PROCESSES, *FILES, *SYSTEM):
        made += [(EQUAL, 0, 1, number), (RETURN, 0, 0, FAIL | errno.EPERM)]
    for number in ABSENT:
        made += [(EQUAL, 0, 1, number), (RETURN, 0, 0, FAIL | errno.ENOSYS)]
    made += [
        (EQUAL, 0, 4, CLONE),
        (LOAD, 0, 0, ARGUMENTS),
        (ANY_BIT, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL | errno.EPERM),
    ]
    for number, index in OPEN.items():
        made += [
            (EQUAL, 0, 4, number),
            (LOAD, 0, 0, ARGUMENTS + 8 * index),
            (ANY_BIT, 0, 1, FOR_WRITING),
            (RETURN, 0, 0, FAIL | errno.EPERM),
            (RETURN, 0, 0, ALLOW),
        ]
    return [*made, (RETURN, 0, 0, ALLOW)]
