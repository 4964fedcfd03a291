"""Two processes make the same run as one: same tokens, numbers and files, stopped by a signal to either."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pyarrow.parquet as pq
import pytest

from amrsd_jax import processes
from amrsd_jax.files import read_json_lines
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.train import train
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[1]
STARTERS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
TIMES = ("seconds/", "tokens/s")


@pytest.mark.parametrize(
    "environment, joins",
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4", "JAX_NUM_PROCESSES": "1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, (None, None)),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, (2, 0)),
    ],
)
def test_only_several_processes_join(monkeypatch, environment, joins):
    for name in STARTERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    called = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda num_processes, process_id: called.append((num_processes, process_id))
    )
    processes.initialize()
    assert called == ([] if joins is None else [joins])


class Metadata(http.server.BaseHTTPRequestHandler):
    """A metadata server; one that is `silent` accepts connections and never answers, an `odd` one speaks no HTTP."""

    odd = threading.Event()
    silent = threading.Event()

    def do_GET(self):
        if self.silent.is_set():
            time.sleep(4)
        if self.odd.is_set():
            self.wfile.write(b"hello\r\n\r\n")
            return
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(
    "environment, answers, joins",
    [
        ({}, True, True),  # a TPU VM
        ({}, False, False),  # Kaggle
        ({}, "hello", False),  # another server
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, False, True),
        ({"JAX_NUM_PROCESSES": "1"}, True, False),
    ],
)
def test_a_tpu_host_joins_others_only_where_there_may_be_some(monkeypatch, environment, answers, joins):
    called = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda num_processes, process_id: called.append(num_processes))
    monkeypatch.setattr(processes.jax, "config", types.SimpleNamespace(jax_platforms="tpu,cpu", update=lambda *_: None))
    for name in (
        "JAX_NUM_PROCESSES",
        "SLURM_STEP_NUM_TASKS",
        "OMPI_COMM_WORLD_SIZE",
        "TPU_WORKER_HOSTNAMES",
        "MEGASCALE_NUM_SLICES",
    ):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("localhost", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (Metadata.silent.clear if answers else Metadata.silent.set)()
        (Metadata.odd.set if answers == "hello" else Metadata.odd.clear)()
        for name, value in ({"GCE_METADATA_IP": f"localhost:{server.server_port}"} | environment).items():
            monkeypatch.setenv(name, value)
        processes.initialize()
        server.shutdown()
    assert bool(called) == joins


@pytest.mark.parametrize("raised", [OSError("disk"), ValueError("form")])
def test_an_error_of_process_0_is_raised_on_all(monkeypatch, raised):
    sent = []

    def read():
        raise raised

    monkeypatch.setattr(processes, "broadcast", lambda value: sent.append(value) or value)
    with pytest.raises(type(raised), match=str(raised)):
        processes.from_first(read)
    monkeypatch.setattr(processes, "is_first", lambda: False)  # another process receives what that one sent
    monkeypatch.setattr(processes, "broadcast", lambda value: sent[0])
    with pytest.raises(type(raised), match=str(raised)):
        processes.from_first(read)


def test_an_interrupt_waits_for_no_row():
    released, ended = threading.Event(), []

    def row(number):
        if number == 0:
            raise KeyboardInterrupt
        released.wait(30)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        processes.map_rows(row, range(3), threads=2)
    assert not ended
    released.set()


def test_rows_are_divided_and_come_back_in_their_order(monkeypatch):
    """As process 1 of 3; the others' shares of seven rows are given."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    computed = []

    def square(a, b):
        computed.append(a)
        return a * b

    monkeypatch.setattr(processes, "allgather", lambda mine: [[0, 9, 36], mine, [4, 25]] if mine else [None] * 3)
    assert processes.map_rows(square, range(7), range(7), threads=1) == [n * n for n in range(7)]
    assert computed == [1, 4]


@pytest.mark.parametrize("fails", [0, 1])
def test_what_one_process_raises_about_a_row_is_raised_on_all(monkeypatch, fails):
    """This is process 1 of 2. Without the error the other would wait for a share that never comes."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    first = None if fails else ["process 0: OSError: row 0", True]
    monkeypatch.setattr(processes, "allgather", lambda mine: [first, mine])

    def row(number):
        if fails:
            raise OSError(f"row {number}")

    with pytest.raises(OSError, match=f"^process {fails}: OSError: row {fails}$"):
        processes.map_rows(row, range(2), threads=1)


def test_every_process_must_take_part(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"mesh \(1, 2, 1\) has 2 devices; 2 processes have 8"):
        meshes.make_mesh(1, 2, 1)


# ---------------------------------------------------------------- the whole run

PROGRAM = """
import os, signal, sys
from absl import app
from amrsd_jax import main
from amrsd_jax.runtime import lines

last, one_line = int(sys.argv.pop()), lines.one_line

def asked_to_stop(step, *args):
    if step == last:
        os.kill(os.getpid(), signal.SIGTERM)
    return one_line(step, *args)

lines.one_line = asked_to_stop
app.run(main.main, flags_parser=main.parse)
"""
FIELDS = dict(mesh__fsdp=2, steps=2, checkpoint__every=1, evaluation__every=0, evaluation__problems=8)


def start(workdir, config, *, stop):
    """Runs two processes of one device each; process 1 receives SIGTERM in step `stop` (0: never).

    Returns stdout and stderr of each.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
    }  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, f"--config={config}", f"--workdir={workdir}"]
    both = []
    for number in range(2):
        mine = environment | {"JAX_PROCESS_ID": str(number)}
        arguments = [*command, str(stop if number == 1 else 0)]
        both.append(subprocess.Popen(arguments, env=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        output = [process.communicate(timeout=600) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n\n".join(err for _, err in output)
    return output


def assert_close(first, other):
    """Checks that two lists of rows have the same values, numbers up to rounding; times are left out."""
    for a, b in zip(first, other, strict=True):
        assert a.keys() == b.keys()
        for name in (name for name in a if not name.startswith(TIMES)):
            for x, y in zip(
                *(value if isinstance(value, list) else [value] for value in (a[name], b[name])), strict=True
            ):
                assert y == (pytest.approx(x, rel=1e-4, abs=1e-5) if isinstance(x, float) else x), name


@pytest.mark.slow
def test_two_processes_are_one_run(finished, tmp_path):
    """The numbers differ by rounding alone: several processes have one thread each, and a sum's order depends on the threads."""
    for name in ("one", "two"):
        for part in ("warmup", "tokenizer"):
            shutil.copytree(finished / part, tmp_path / name / part)
    train(tiny_config(**FIELDS), tmp_path / "one")
    config = tmp_path / "config.py"
    config.write_text(f"from tests.tiny import tiny_config\ndef get_config(): return tiny_config(**{FIELDS!r})\n")

    (_, first), (_, other) = start(tmp_path / "two", config, stop=1)
    assert "SIGTERM: saved at step 1" in first and "saved" not in other
    (out, first), (other, _) = start(tmp_path / "two", config, stop=0)
    assert "resuming at step 1" in first and "report: " in out and "report: " not in other

    tables = [pq.read_table(tmp_path / name / "rollouts" / "step_00001.parquet").to_pylist() for name in ("one", "two")]
    assert_close(*tables)
    rows = [read_json_lines(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    assert [(row["kind"], row["step"]) for row in rows[1]] == [("eval", 0), ("train", 1), ("train", 2), ("eval", 2)]
    assert_close(*rows)
    with ocp.StandardCheckpointer() as checkpointer:
        one, two = ((tmp_path / name / "checkpoints" / "2" / "state").absolute() for name in ("one", "two"))
        alone = checkpointer.restore(one)
        together = checkpointer.restore(two, alone)  # onto the devices of this process
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "two" / "results.json").read_text())["steps"] == 2
