"""Workers: lines answered in turn, deadlines kept, the dead replaced."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from amrsd_jax.tasks.workers import Pool, Worker

SCRIPT = """
import os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "sleep":
        time.sleep(60)
    if word == "pause":
        time.sleep(0.3)
    if word == "die":
        os._exit(1)
    print(word.upper() * (100_000 if word == "much" else 1), os.getpid(), flush=True)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "echo.py"
    path.write_text(SCRIPT)
    return path


def test_a_worker_answers_stops_at_the_deadline_and_comes_back(script):
    worker = Worker(script)
    word, process = worker.ask(b"hello", seconds=60).split()
    assert word == b"HELLO" and worker.ask(b"again", seconds=60) == b"AGAIN " + process
    begin = time.monotonic()
    assert worker.ask(b"sleep", seconds=0.2) is None
    assert time.monotonic() - begin < 30
    assert worker.ask(b"back", seconds=60).split()[1] != process
    assert worker.ask(b"die", seconds=60) is None
    assert worker.ask(b"much", seconds=60).split()[0] == b"MUCH" * 100_000
    worker.stop()
    worker.stop()


def test_what_a_worker_started_ends_with_it(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import subprocess, sys\nprint('ready', flush=True)\nfor line in sys.stdin:\n"
        "    child = subprocess.Popen(['sleep', '600'])\n    print(child.pid, flush=True)\n    child.wait()\n"
    )
    worker = Worker(script)
    child = int(worker.ask(b"go", seconds=60))
    worker.stop()
    for _ in range(100):  # until it is reaped, by whatever adopted it
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child runs on")


def test_a_script_that_does_not_start_is_an_error(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("1/0")
    with pytest.raises(RuntimeError, match=r"broken\.py: did not start"):
        Worker(broken).ask(b"hello", seconds=1)


def test_a_pool_lends_each_worker_to_one_thread_at_a_time(script):
    pool, answers = Pool(script, 2), {}
    threads = [
        threading.Thread(target=lambda i=i: answers.update({i: pool.ask(b"n%d" % i, seconds=60)})) for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: answer.split()[0] for i, answer in answers.items()} == {i: b"N%d" % i for i in range(20)}
    assert len({answer.split()[1] for answer in answers.values()}) <= 2
    pool.stop()
    assert pool.ask(b"once more", seconds=60).startswith(b"ONCE MORE")
    pool.stop()


def processes(pool):
    return [worker._process for worker in pool._all if worker._process]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_was_killed_costs_a_retry_and_no_answer(script, number):
    """A scheduler may send SIGTERM to every process of a run. The run still needs the answers of a verification in progress."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("a shell's background jobs ignore SIGINT, and so do the processes that they start")
    pool = Pool(script, 1)
    assert pool.ask(b"first", seconds=60).startswith(b"FIRST")
    (process,) = processes(pool)
    assert os.getpgid(process.pid) != os.getpgrp()  # Ctrl-C in a terminal does not reach it
    os.kill(process.pid, number)  # while idle
    process.wait()
    assert pool.ask(b"second", seconds=60).startswith(b"SECOND")
    (process,) = processes(pool)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(pool.ask(b"pause", seconds=60)))
    asking.start()
    time.sleep(0.1)
    os.kill(process.pid, number)  # while it works
    asking.join()
    assert answers[0].startswith(b"PAUSE")
    pool.stop()


def test_stopping_a_pool_disturbs_no_question(script):
    pool, answers = Pool(script, 2), []
    threads = [threading.Thread(target=lambda: answers.append(pool.ask(b"pause", seconds=60))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.2)
        pool.stop()
    for thread in threads:
        thread.join()
    assert len(answers) == 4  # no thread died, none waits for ever
    pool.stop()


def test_a_question_longer_than_a_pipe_and_a_process_that_reads_nothing(script, tmp_path):
    worker = Worker(script)
    assert len(worker.ask(b"x" * 500_000, seconds=60)) > 500_000
    worker.stop()
    deaf = tmp_path / "deaf.py"
    deaf.write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)")
    begin = time.monotonic()
    assert Worker(deaf).ask(b"x" * 500_000, seconds=0.5) is None
    assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_questions_are_answered_in_the_order_in_which_they_are_asked(script):
    pool, order, threads = Pool(script, 1), [], []
    assert pool.ask(b"ready", seconds=60)
    for i in range(6):
        threads.append(threading.Thread(target=lambda i=i: (pool.ask(b"pause", seconds=60), order.append(i))))
        threads[-1].start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    assert order == sorted(order)
    pool.stop()
