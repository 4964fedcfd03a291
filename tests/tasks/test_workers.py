"""Workers: lines answered in turn, deadlines kept, the dead replaced."""

import threading
import time

import pytest

from amrsd_jax.tasks.workers import Pool, Worker

SCRIPT = """
import os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "sleep":
        time.sleep(60)
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
