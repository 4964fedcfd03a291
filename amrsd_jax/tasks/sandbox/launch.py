"""Chooses a sandbox by what the machine has, and starts its processes.

Bubblewrap gives a process new namespaces (user, PID, mount, network, IPC, UTS, cgroup), so that there is no network and no
process but its own, and a file system of its own: Python's installation and /usr, read-only, an empty /tmp, and the code of
`inside`.
"""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from amrsd_jax.tasks.sandbox import system_calls
from amrsd_jax.tasks.workers import Pool

INSIDE = Path(__file__).with_name("inside")
NOBODY = 65534  # user and group of a sandbox that root starts
PROCESSES = 24  # processes and threads in a sandbox, five of them ours; our choice
GRACE = 20.0  # seconds that the checker has beyond its own deadline before its sandbox is killed, our choice
_START = "import sys; sys.path[0] = {folder!r}; from inside import server; server.main()"
_FLAGS = ("-s", "-S", "-B")
# A program that depends on the order of a set has the same verdict in a resumed run.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
# Runs a command that the kernel ends before the training where memory is short.
_FIRST_TO_END = ("/bin/sh", "-c", 'echo 1000 > /proc/self/oom_score_adj; exec "$@"', "sh")
_TRIAL = {"kind": "asserts", "tests": "assert f() == 1", "setup": ""}
_PYTHON = "import sys; print('%d.%d.%d' % sys.version_info[:3], sys.version_info >= (3, 9), sys.base_prefix)"


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a program; those without a source are our choice.

    Attributes:
      seconds: processor time of one of its processes. Wall time is limited to twice as much, and that of all tests together to
        ten times as much.
      memory: address space of one process in bytes.
      output: bytes of one file or of the standard output.
      folder: bytes of all files together.
      partial: whether tests are run after the first failure.
    """

    seconds: int = 6
    memory: int = 1 << 30
    output: int = 16 << 20
    folder: int = 32 << 20
    partial: bool = True

    @property
    def total(self) -> int:
        """Seconds of wall time for all tests of a program."""
        return 10 * self.seconds


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """A kind of sandbox.

    Attributes:
      name: "bubblewrap", or "limits", which is none.
      description: one line for logs and reports.
      isolated: whether it has namespaces.
      python: the interpreter that runs inside.
    """

    name: str
    description: str
    isolated: bool
    python: str

    def run(self, prelude: str, source: str, suite: dict[str, Any], limits: Limits) -> dict[str, Any] | None:
        """Tests a program; returns `tests`, `passed` and `first`, see `inside.suites.run`; None if the checker did not finish.

        Args:
          prelude: source that is run before the program, in the same namespace.
          source: the program.
          suite: the tests, see `inside.suites`.
          limits: of the program.
        """
        fields = dataclasses.asdict(limits) | {
            "namespaces": self.isolated, "wall": 2 * limits.seconds, "total": limits.total,
            "processes": PROCESSES if self.isolated else 0,
        }  # fmt: skip
        part = json.dumps({"prelude": prelude, "source": source, "limits": fields}).encode()
        question = b"%d\n%s%s" % (len(part), part, json.dumps(suite).encode())
        answer = _workers(self).ask(question, seconds=limits.total + GRACE)
        return None if answer is None else json.loads(answer)

    def start(self) -> subprocess.Popen:
        """Starts a process that answers jobs (`inside.server`); it ends when this one does."""
        return _starter().submit(self._start).result()

    def stop(self) -> None:
        """Kills all processes; the next program starts them again."""
        _workers(self).stop()

    def _start(self) -> subprocess.Popen:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        if self.isolated:
            return _in_bubblewrap(self.python, _START.format(folder="/checker"), **pipes)
        command = [self.python, *_FLAGS, "-c", _START.format(folder=str(INSIDE.parent))]
        return subprocess.Popen(command, env=_ENVIRONMENT, start_new_session=True, **pipes)


def choose(unsafe: bool = False) -> Sandbox:
    """Returns bubblewrap where it works; elsewhere limits alone, if `unsafe` allows that.

    Raises:
      ValueError: there is no sandbox; says why.
    """
    found = _bubblewrap()
    if isinstance(found, Sandbox):
        return found
    if not unsafe:
        raise ValueError(
            f"task.args.unsafe = False: there is no sandbox to run a model's programs in ({found}); install bubblewrap and "
            "allow user namespaces, or set it to True, which runs them as this user, under limits of time and memory alone"
        )
    description = f"NO SANDBOX, limits of time and memory alone ({found})"
    return Sandbox("limits", description, False, getattr(sys, "_base_executable", None) or sys.executable)


@functools.cache
def _bubblewrap() -> Sandbox | str:
    """Returns bubblewrap with the first interpreter that works in it, or the reason why there is none."""
    if not shutil.which("bwrap"):
        return "bwrap is not installed"
    reason = ""
    for python in dict.fromkeys((os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3")):
        if not Path(python).exists():
            continue
        try:
            probe = _in_bubblewrap(python, _PYTHON, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            written, errors = probe.communicate(timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            reason = reason or f"{python}: {error}"
            continue
        version, recent, _ = (*written.decode().split(), "", "", "")[:3]
        if probe.returncode or recent != "True":
            reason = reason or f"{python}: {errors.decode(errors='replace').strip()[-200:] or 'older than Python 3.9'}"
            continue
        sandbox = Sandbox("bubblewrap", f"bubblewrap, {python} ({version})", True, python)
        try:
            outcome = sandbox.run("", "def f(): return 1", _TRIAL, Limits(seconds=10))
        except RuntimeError as error:
            outcome = error
        if isinstance(outcome, dict) and outcome["passed"] == 1:
            return sandbox
        reason = reason or f"{python}: a first program failed ({outcome})"
    return f"bwrap does not work here: {reason}"


def _in_bubblewrap(python: str, code: str, **popen: Any) -> subprocess.Popen:
    """Starts an interpreter with some code in bubblewrap.

    Its user is root of a user namespace, with the one capability that further namespaces need. If this process is root, that user
    is nobody outside, to whom the kernel's limit on processes applies.
    """
    prefix = Path(python).parents[1]
    mounts = ["--ro-bind", "/usr", "/usr"]
    for name in ("lib", "lib64", "bin"):
        if (folder := Path("/", name)).is_symlink():
            mounts += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.exists():
            mounts += ["--ro-bind", str(folder), str(folder)]
    if not prefix.is_relative_to("/usr"):  # without what else is in that folder, which may be a home
        folders = [str(prefix / name) for name in ("bin", "lib", "lib64") if (prefix / name).exists()]
        mounts += [word for folder in folders for word in ("--ro-bind", folder, folder)]
    files, descriptors = _copies(sorted(INSIDE.glob("*.py")))
    if system_calls.build():
        descriptors.append(_descriptor("filter", system_calls.build()))
        files += ["--seccomp", str(descriptors[-1])]
    environment = [word for pair in _ENVIRONMENT.items() for word in ("--setenv", *pair)]
    command = [
        *_FIRST_TO_END, "bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "0", "--gid", "0", "--cap-add",
        "CAP_SYS_ADMIN", "--die-with-parent", "--new-session", "--clearenv", *environment, *mounts, "--dev", "/dev",
        "--tmpfs", "/dev/pts", "--remount-ro", "/dev/pts", "--remount-ro", "/dev", "--tmpfs", "/tmp", *files, "--remount-ro", "/",
        "--chdir", "/tmp", "--", python, *_FLAGS, "-c", code,
    ]  # fmt: skip
    user = dict(user=NOBODY, group=NOBODY, extra_groups=[]) if os.geteuid() == 0 else {}
    try:
        return subprocess.Popen(command, pass_fds=descriptors, start_new_session=True, **user, **popen)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _copies(paths: Sequence[Path]) -> tuple[list[str], list[int]]:
    """Returns bubblewrap's arguments that put copies of files in /checker/inside, and descriptors of their content.

    The user inside may be unable to read the folder that they are in.
    """
    arguments, descriptors = [], []
    for path in paths:
        descriptor = _descriptor(path.name, path.read_bytes())
        arguments += ["--perms", "0444", "--ro-bind-data", str(descriptor), f"/checker/inside/{path.name}"]
        descriptors.append(descriptor)
    return arguments, descriptors


def _descriptor(name: str, content: bytes) -> int:
    """Returns a descriptor of a file in memory, to be read from its beginning."""
    descriptor = os.memfd_create(name)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@functools.cache
def _workers(sandbox: Sandbox) -> Pool:
    """Returns the pool of a sandbox's processes: one per processor, up to 8 (our choice)."""
    return Pool(sandbox.start, min(os.cpu_count() or 1, 8))


@functools.cache
def _starter() -> ThreadPoolExecutor:
    """Returns a thread that starts processes and lives as long as this one: bubblewrap ends with the thread that started it."""
    return ThreadPoolExecutor(1, "sandbox")
