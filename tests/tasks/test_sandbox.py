"""The sandbox: right programs pass, and no program passes, hangs, breaks out or leaves anything by other means."""

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amrsd_jax.tasks import code_tests, sandbox
from amrsd_jax.tasks.sandbox import Limits, launch, system_calls
from tests.tasks import hostile_programs

CALLS = {"kind": "asserts", "tests": "assert f(1, 2) == 3\nassert f(2, 2) == 4", "setup": ""}
SCRIPT = {"kind": "script", "cases": [["1 2\n", "3\n"]]}
ADD = "def f(a, b): return a + b"
LIMITS = Limits(seconds=1)


@pytest.fixture(scope="module")
def bubblewrap():
    try:
        kind = sandbox.choose()
    except ValueError as error:
        pytest.skip(str(error))
    yield kind
    kind.stop()


@pytest.fixture(scope="module")
def limits_alone():
    """What a machine without bubblewrap has."""
    kind = sandbox.Sandbox("limits", "", False, os.path.realpath(launch.sys.executable))
    yield kind
    kind.stop()


@pytest.fixture(params=["bubblewrap", "limits_alone"])
def either(request):
    return request.getfixturevalue(request.param)


def run(kind, source, suite=CALLS, prelude=""):
    return kind.run(prelude, source, suite, LIMITS)


def assert_nothing_passes(kind, programs, suite):
    begin = time.monotonic()
    with ThreadPoolExecutor(3) as threads:
        outcomes = dict(
            zip(programs, threads.map(lambda source: run(kind, source, suite), programs.values()), strict=True)
        )
    assert {name: outcome for name, outcome in outcomes.items() if outcome and outcome["passed"]} == {}
    assert time.monotonic() - begin < 60 + len(programs) * (LIMITS.total + launch.GRACE)
    assert run(kind, ADD) == {"tests": 2, "passed": 2, "first": None}
    assert not list(Path("/tmp").glob(f"*{hostile_programs.MARK}*")) and not Path(hostile_programs.MARK).exists()
    assert children() == []


def children():
    """Processes below this one's servers that are left two seconds after a job."""
    for _ in range(20):
        parents, servers = {}, set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parents[folder.name] = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if b"inside import server" in command and not command.startswith(b"bwrap"):
                servers.add(folder.name)
        left = [
            pid for pid in parents if servers & set(above(pid, parents)) and str(os.getpid()) in above(pid, parents)
        ]
        if not left:
            break
        time.sleep(0.1)
    return left


def above(pid, parents):
    """The processes that a process descends from."""
    found = []
    while pid in parents and parents[pid] not in found:
        pid = parents[pid]
        found.append(pid)
    return found


def test_right_programs_pass_in_every_form(either):
    assert run(either, ADD) == {"tests": 2, "passed": 2, "first": None}
    assert run(either, "print(sum(map(int, input().split())))", SCRIPT)["passed"] == 1
    calls = {"kind": "calls", "function": "f", "cases": [[[1, 2], 3], [[[1], [2]], [1, 2]], [[0, 1], 2]]}
    for source in (ADD, "class Solution:\n    def f(self, a, b): return a + b"):
        outcome = run(either, source, calls)
        assert (outcome["tests"], outcome["passed"]) == (3, 2)
        assert outcome["first"] == {"failure": "wrong", "input": "f(0, 1)", "expected": "2", "got": "1"}


def test_a_call_may_return_what_a_list_of_one_holds(either):
    wrapped = {"inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]], "fn_name": "f"}
    for source in (ADD, "def f(a, b): return [a + b]"):
        assert run(either, source, code_tests.suite(wrapped))["passed"] == 2
    assert run(either, "def f(a, b): return a", code_tests.suite(wrapped))["passed"] == 0
    assert run(either, ADD, code_tests.suite({**wrapped, "outputs": [[3], 7]}))["passed"] == 1


def test_assertions_of_every_form_run_outside_of_the_program(bubblewrap):
    suite = {
        "kind": "asserts", "function": "f", "setup": "def double(x):\n    return 2 * x\n",
        "tests": """
import math
def check(candidate):
    xs = [1, 2]
    assert candidate(xs) == [1, 2, 3], "appended"
    for n in range(3):
        assert candidate([n])[0] == n
    assert not candidate([0])[0]
    assert math.isclose(sum(candidate([0.5])), 3.5) and double(len(candidate([]))) == 2
    try:
        candidate(None)
    except TypeError:
        pass
    else:
        assert False
""",
    }  # fmt: skip
    assert run(bubblewrap, "def f(x):\n    return x + [3]", suite) == {"tests": 4, "passed": 4, "first": None}
    assert run(bubblewrap, "def f(x):\n    return [3] + x", suite)["passed"] == 0 + 1  # math.isclose: a sum


def test_objects_of_the_program_can_be_built_and_passed_back(bubblewrap):
    suite = {
        "kind": "asserts",
        "setup": "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)",
        "tests": "assert depth(root) == 3\nassert total([root, root.left]) == 3\nassert kind(1, int) == True",
    }
    node = "class Node:\n    def __init__(self, value):\n        self.value, self.left = value, None\n"
    depth = "def depth(node):\n    return 1 + depth(node.left) if node else 0\n"
    total = "def total(nodes):\n    return sum(node.value for node in nodes)\ndef kind(x, t):\n    return isinstance(x, t)\n"
    assert run(bubblewrap, node + depth + total, suite) == {"tests": 3, "passed": 3, "first": None}
    assert run(bubblewrap, node + depth, suite)["passed"] == 1


def test_builtins_are_not_the_program_s(bubblewrap):
    suite = {"kind": "asserts", "tests": "assert abs(f(1) - 1.5) < 1e-6", "setup": ""}
    assert run(bubblewrap, "abs = lambda x: 0\ndef f(x): return 9", suite)["passed"] == 0
    assert run(bubblewrap, "def f(x): return x + 0.5", suite)["passed"] == 1
    only = {"kind": "asserts", "tests": "assert sum(1, 2) == 3", "setup": ""}
    assert run(bubblewrap, "def sum(a, b): return a + b", only)["passed"] == 1


def test_an_exception_of_the_program_ends_no_iteration_of_a_test(bubblewrap):
    suite = {"kind": "asserts", "tests": "assert all(map(f, [1, 2]))", "setup": ""}
    assert run(bubblewrap, "def f(x): raise StopIteration", suite)["passed"] == 0
    assert run(bubblewrap, "def f(x): return x", suite)["passed"] == 1


def test_a_generator_becomes_a_list(bubblewrap):
    suite = {"kind": "asserts", "tests": "assert list(f(2)) == [0, 1]\nassert sorted(f(2)) == [0, 1]", "setup": ""}
    assert run(bubblewrap, "def f(n): yield from range(n)", suite)["passed"] == 2


def test_a_statement_that_fails_between_the_tests_leaves_no_full_marks(bubblewrap):
    for tests in (
        "assert f(1, 2) == 3\nif f(2, 2) != 4: raise ValueError",
        "def g(x): assert x == 4\nassert f(1, 2) == 3\ng(f(2, 2))",
    ):
        suite = {"kind": "asserts", "tests": tests, "setup": ""}
        assert run(bubblewrap, "def f(a, b): return 3", suite)["passed"] == 0
        assert run(bubblewrap, ADD, suite) == {"tests": 1, "passed": 1, "first": None}


def test_tests_that_a_test_leaves_out_have_failed(bubblewrap):
    tests = "def check(f):\n    assert f(1, 2) == 3\n    if f(2, 2) != 4: return\n    assert f(0, 1) == 1"
    outcome = run(
        bubblewrap, "def f(a, b): return 3", {"kind": "asserts", "tests": tests, "setup": "", "function": "f"}
    )
    assert (outcome["tests"], outcome["passed"], outcome["first"]["failure"]) == (2, 1, "wrong")


@pytest.mark.parametrize(
    "source",
    [
        "print(3)\nexit()",
        "print(3)\nquit(0)",
        "import sys\nprint(3)\nsys.stdout.close()",
        "out = open(1, 'w')\nprint(3, file=out)",  # written when the interpreter ends
        "import atexit, os\natexit.register(lambda: os.write(1, b'3'))",
        "import sys, threading\nthreading.stack_size(1 << 27)\nthreading.Thread(target=print, args=(3,)).start()",
    ],
)
def test_scripts_end_as_under_an_interpreter(either, source):
    assert run(either, source, SCRIPT) == {"tests": 1, "passed": 1, "first": None}


def test_a_program_has_the_same_hashes_and_random_numbers_in_every_process(either):
    source = "import random\ndef f(a, b): return [hash('x'), random.random(), list({'a', 'b', 'c'})]"
    first = run(either, source)["first"]["got"]
    either.stop()
    assert run(either, source)["first"]["got"] == first


def test_a_message_that_never_ends_times_out(either):
    source = (
        "import os, time, struct\nos.write(3, struct.pack('!I', 99))\nwhile True: os.write(3, b' '); time.sleep(0.4)"
    )
    assert run(either, source)["first"]["failure"] == "timed out"


def test_values_cannot_exhaust_the_checker(bubblewrap):
    suite = {"kind": "asserts", "tests": "assert len(bytes(f(1, 2))) == 5 * 10**9\nassert f(1, 2)", "setup": ""}
    outcome = run(bubblewrap, "def f(a, b): return 5 * 10**9", suite)
    assert outcome["passed"] == 1 and outcome["first"]["expected"] == "5 * 10 ** 9"


@pytest.mark.skipif(not system_calls.build(), reason="no filter for this processor")
def test_what_namespaces_do_not_separate_is_refused(bubblewrap):
    column = system_calls.MACHINES[os.uname().machine][1]
    source = (
        "import ctypes, errno, socket\n"
        "def f(numbers):\n"
        "    c = ctypes.CDLL(None, use_errno=True)\n"
        "    return [(c.syscall(n, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM) for n in numbers]\n"
        "def g(family):\n"
        "    try: return bool(socket.socket(family))\n"
        "    except OSError as error: return error.errno == errno.EAFNOSUPPORT and 'refused'\n"
    )
    vsock = 40  # socket.AF_VSOCK, which Python does not have everywhere
    numbers = [pair[column] for pair in system_calls.REFUSED.values()]
    suite = {
        "kind": "asserts", "setup": "",
        "tests": f"assert f({numbers}) == {[True] * len(numbers)}\nassert [g({vsock}), g(1), g(2)] == ['refused', True, True]",
    }  # fmt: skip
    assert run(bubblewrap, source, suite) == {"tests": 2, "passed": 2, "first": None}


def test_the_kernel_ends_programs_first_where_memory_is_short(bubblewrap):
    process = bubblewrap.start()
    try:
        assert process.stdout.readline() == b"ready\n"
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"
    finally:
        process.kill()
        process.wait()


def test_failures_say_what_happened(either):
    def first(source):
        return run(either, source)["first"]

    assert first("def f(a, b):\n    if a == 2: return 5\n    return 3") == {
        "failure": "wrong", "input": "f(2, 2)", "expected": "4", "got": "5",
    }  # fmt: skip
    error = first("def g(a):\n    return a / 0\ndef f(a, b):\n    return g(a)")
    assert (error["type"], error["message"], error["line"], error["text"]) == (
        "ZeroDivisionError", "division by zero", 2, "return a / 0",
    )  # fmt: skip
    assert first("def f(a, b)")["type"] == "SyntaxError" and first("g = 1")["type"] == "NameError"
    assert first("import os\ndef f(a, b): os._exit(0)")["failure"] == "ended"
    assert first("def f(a, b): return object()") == {
        "failure": "unplain", "input": "f(1, 2)", "expected": "3", "got": "<object>", "type": "object",
    }  # fmt: skip


def test_a_loop_and_a_sleep_time_out(bubblewrap):
    for source in ("def f(a, b):\n    while True: pass", "import time\ntime.sleep(1000)"):
        outcome = run(bubblewrap, source)
        assert outcome["passed"] == 0
        assert outcome["first"]["failure"] == "timed out"  # by the clock, or by the limit of processor time


def test_tests_end_at_the_first_failure_where_the_rest_changes_nothing(bubblewrap):
    source = "calls = 0\ndef f(a, b):\n    global calls\n    calls += 1\n    return a + b if calls > 1 else 0"
    assert bubblewrap.run("", source, CALLS, LIMITS)["passed"] == 1
    assert bubblewrap.run("", source, CALLS, Limits(seconds=1, partial=False))["passed"] == 0


def test_outputs_are_compared_by_line_and_number(bubblewrap):
    def passed(written, expected):
        suite = {"kind": "script", "cases": [["", expected]]}
        return run(bubblewrap, f"print({written!r}, end='')", suite)["passed"] == 1

    assert passed("1 2 \n3\n\n", "1 2\n3") and passed("1.50", "1.5") and passed("a  b", "a b")
    assert not passed("1 2 3", "1 2\n3") and not passed("1.51", "1.5") and not passed("", "0")


def test_programs_see_neither_tests_nor_each_other(bubblewrap):
    spy = (
        "import os\nopen('/tmp/left', 'w').write('x')\n"
        "def f(a, b):\n    return sorted(os.listdir('/tmp')) + [os.getpid(), os.path.exists('/proc/1')]"
    )
    suite = {"kind": "asserts", "tests": "assert f(1, 2) == ['left', 1, False]", "setup": ""}
    for _ in range(2):
        assert run(bubblewrap, spy, suite)["passed"] == 1
    empty = {"kind": "asserts", "tests": "assert f(1, 2) == []", "setup": ""}
    assert run(bubblewrap, "import os\ndef f(a, b): return os.listdir('/tmp')", empty)["passed"] == 1
    programs = dict(hostile_programs.functions())
    for name in ("calls own memory", "calls frames"):  # they raise another error where they find tests
        assert run(bubblewrap, programs[name])["first"]["type"] == "ValueError"


QUICK = (
    "loads os exit", "calls os exit", "calls kill parent", "calls kill all", "returns equal int", "returns mock", "calls frames",
    "calls own memory", "calls fake frames", "calls patched builtins", "loads replace checker", "calls network",
    "loads namespace", "calls every descriptor", "calls close", "loads daemons", "calls memory", "returns deep",
)  # fmt: skip


def test_hostile_programs_earn_nothing(bubblewrap):
    programs = dict(hostile_programs.functions())
    assert_nothing_passes(bubblewrap, {name: programs[name] for name in QUICK}, CALLS)


@pytest.mark.slow
def test_three_hundred_hostile_programs_earn_nothing(bubblewrap):
    functions, scripts = dict(hostile_programs.functions()), dict(hostile_programs.scripts())
    assert len(functions) + len(scripts) >= 300
    assert_nothing_passes(bubblewrap, functions, CALLS)
    assert_nothing_passes(bubblewrap, scripts, SCRIPT)


def test_no_sandbox_is_an_error_unless_it_is_allowed(monkeypatch):
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    launch._bubblewrap.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"task.args.unsafe = False: .*bwrap is not installed"):
            sandbox.choose()
        assert sandbox.choose(unsafe=True).name == "limits" and not sandbox.choose(unsafe=True).isolated
        assert "NO SANDBOX" in sandbox.choose(unsafe=True).description
    finally:
        launch._bubblewrap.cache_clear()


def test_no_more_of_an_interpreter_s_folder_is_seen_than_it_needs(monkeypatch, tmp_path):
    commands, start = [], subprocess.Popen
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **_: commands.append(command) or start(["true"]))
    for name in ("bin", "lib", "data"):
        (tmp_path / name).mkdir()
    launch._in_bubblewrap(str(tmp_path / "bin" / "python3"), "").wait()
    seen = {word for word in commands[0] if word.startswith(str(tmp_path))}
    assert seen == {str(tmp_path / "bin"), str(tmp_path / "lib"), str(tmp_path / "bin" / "python3")}


def test_a_bubblewrap_that_does_not_work_is_tried_once(monkeypatch):
    tried = []

    def broken(python, code, **popen):
        tried.append(python)
        if len(tried) > 1:
            raise OSError("cannot start")
        return subprocess.Popen(["/bin/sh", "-c", "echo no namespaces >&2; exit 1"], **popen)

    monkeypatch.setattr(launch.shutil, "which", lambda name: name)
    monkeypatch.setattr(launch, "_in_bubblewrap", broken)
    launch._bubblewrap.cache_clear()
    try:
        assert "no namespaces" in sandbox.choose(unsafe=True).description
        first = len(tried)
        assert sandbox.choose(unsafe=True).name == "limits" and len(tried) == first > 0
    finally:
        launch._bubblewrap.cache_clear()
