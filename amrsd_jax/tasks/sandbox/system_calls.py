"""Builds the filter of system calls that bubblewrap installs (`--seccomp`): a program of the kernel's classic BPF machine.

It refuses what namespaces do not separate or limits do not count. Programs need none of it.
"""

import errno
import platform
import struct

MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_* of linux; column of the numbers below
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6; others, as AF_VSOCK, reach beyond a network namespace
SOCKET = (41, 198)
REFUSED = {  # numbers on x86_64 and aarch64
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),  # memory that RLIMIT_AS does not count
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),  # would outlive a program
    "sync": (162, 81), "syncfs": (306, 267),  # of file systems outside
    "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "bpf": (321, 280), "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),  # large parts of the kernel that no program here needs
}  # fmt: skip
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000  # SECCOMP_RET_*


def build(machine: str = platform.machine()) -> bytes:
    """Returns the filter for a kind of processor; b"" for one whose numbers are not known here."""
    if machine not in MACHINES:
        return b""
    code, column = MACHINES[machine]
    program = [
        (_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, code), (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, 1 << 30), (_RETURN, 0, 0, _ERROR | errno.ENOSYS),  # numbers of x32
    ]  # fmt: skip
    for numbers in REFUSED.values():
        program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    program += [(_EQUAL, 1, 0, SOCKET[column]), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _ARGUMENT)]
    for family in FAMILIES:
        program += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _ERROR | errno.EAFNOSUPPORT))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
