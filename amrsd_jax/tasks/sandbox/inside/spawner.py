"""Starts the program's processes. It is forked before the tests are read, so that none of its children has ever held them.

With namespaces each process is the first of its own PID namespace, so that all that it starts ends with it, and sees no other
process; it has a mount and an IPC namespace, an empty /tmp of its own, and no capability.
"""

import ctypes
import os
import resource
import signal
import socket

from . import plain, program

_NEWNS, _NEWIPC, _NEWPID = 0x00020000, 0x08000000, 0x20000000  # of linux/sched.h
_NOSUID, _NODEV = 2, 4  # of linux/mount.h
_DEATH_SIGNAL, _SUBREAPER, _NO_NEW_PRIVILEGES = 1, 36, 38  # of linux/prctl.h
_CAPABILITIES_3 = 0x20080522  # of linux/capability.h
_NEARLY = 0.8  # the kernel enforces the limit on processor time by ticks, but reports exact times, which may be shorter
CONNECTION = 3  # descriptor of the socket to the checker

_libc = ctypes.CDLL(None, use_errno=True)


def serve(checker, prelude, source, limits, folder):
    """Starts a process for each message of the checker, which carries its descriptors, and reports how it ended.

    Args:
      checker: socket to the checker.
      prelude, source: see `program.serve`.
      limits: see `confine`.
      folder: working directory of the processes; with namespaces an empty /tmp is mounted there.
    """
    _call("prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if not limits["namespaces"]:
        _call("prctl", _SUBREAPER, 1, 0, 0, 0)  # gets the orphans of the program
    while True:
        message, files, _, _ = socket.recv_fds(checker, 1, 3)
        if not message:
            return
        if not limits["namespaces"]:
            _start(files, checker, prelude, source, limits, folder)
            _kill_children()
        elif (helper := os.fork()) == 0:  # a process can make only one PID namespace for its children
            try:
                _call("unshare", _NEWPID)
                _start(files, checker, prelude, source, limits, folder)
            finally:
                os._exit(0)
        else:
            for file in files:
                os.close(file)
            os.waitpid(helper, 0)


def _start(files, checker, prelude, source, limits, folder):
    """Starts a process, waits for its end, and tells the checker of both."""
    pid = os.fork()
    if pid == 0:
        try:
            confine(files, limits, folder)
            program.serve(socket.socket(fileno=CONNECTION), prelude, source)
        except BaseException:  # the checker closed the connection, or the program broke what answers it
            pass
        finally:
            os._exit(0)
    for file in files:
        os.close(file)
    plain.send(checker, {"pid": pid})
    _, status, used = os.wait4(pid, 0)
    end = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None}
    spent = used.ru_utime + used.ru_stime
    plain.send(checker, end | {"out_of_time": spent >= _NEARLY * limits["seconds"]})


def confine(files, limits, folder):
    """Restricts this process for good.

    Args:
      files: descriptors of the socket, and of standard input and output if these are not empty.
      limits: `namespaces`, whether this process may make them; `seconds` of processor time; `memory`, `output` and `folder`
        in bytes; `processes`, threads included, 0 for no limit.
      folder: the working directory.
    """
    empty = os.open(os.devnull, os.O_RDWR)
    given, written = files[1:] or (empty, empty)
    for number, file in enumerate((given, written, empty, files[0])):
        os.dup2(file, number + 100)
    for number in range(4):
        os.dup2(number + 100, number)
    os.closerange(CONNECTION + 1, 200)
    os.setsid()
    if limits["namespaces"]:
        _call("unshare", _NEWNS | _NEWIPC)
        options = f"size={limits['folder']},nr_inodes=1000,mode=700".encode()
        _call("mount", b"tmpfs", folder.encode(), b"tmpfs", _NOSUID | _NODEV, options)
    os.chdir(folder)
    for kind, most in (
        (resource.RLIMIT_CPU, limits["seconds"]), (resource.RLIMIT_AS, limits["memory"]), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits["output"]), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_STACK, 64 << 20),
        *([(resource.RLIMIT_NPROC, limits["processes"])] if limits["processes"] else []),
    ):  # fmt: skip
        resource.setrlimit(kind, (most, most))
    if limits["namespaces"]:
        drop_capabilities()


def drop_capabilities():
    """Gives up all capabilities of this process."""
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    _call("capset", header, sets)


def _kill_children():
    """Kills what the program's process has left, which has become this one's."""
    while True:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
                for pid in children.read().split():
                    os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _call(name, *arguments):
    """Calls a function of the C library; raises OSError if it returns -1."""
    if getattr(_libc, name)(*arguments) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
