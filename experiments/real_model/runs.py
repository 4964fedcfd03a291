"""Makes the runs of the study, one after the other in one process, so that they share compiled programs."""

import hashlib
import itertools
import json
import os
import shutil
import traceback
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from amrsd_jax.experiment import make_experiment
from amrsd_jax.interrupt import Interrupted
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.runtime.workdir import config_json
from amrsd_jax.start import initial_params
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from experiments.common import Row, add_rows, circumstances, has_row, read_rows
from experiments.curves import final, log
from experiments.real_model.arms import LR, configure, keys
from experiments.real_model.measure import measured


def run(out: Path, results: Path, *, rungs: list, arms: list, lr: list, seeds: list | None) -> None:
    """Makes the runs that the results lack. Arms vary fastest, so that an interrupted experiment leaves comparable runs.

    A run that fails is named, with the cause in the log, and the others go on.

    Args:
      out: folder of the starts, compiled programs, kept runs and the log.
      results: the JSON file.
      rungs, arms, lr: values of the axes.
      seeds: the same; None takes those of PARTS.
    """
    for rung, arm in itertools.product(rungs, arms):  # a wrong name stops the experiment before its first run
        configure(rung, arm, lr[0], 0)
    out.mkdir(parents=True, exist_ok=True)
    use_compilation_cache(out)
    now, failed = circumstances(), []
    try:
        missing = {key["rung"] for key in keys(rungs, arms, lr, seeds) if not has_row(results, **key)}
        starts = {rung: start_of(rung, out) for rung in rungs if rung in missing}
    except Interrupted as signal:
        raise SystemExit(f"{signal}: no run was made") from signal
    for rung, start in starts.items():
        elsewhere = {row["seed"] for row in read_rows(results) if row["rung"] == rung and row["start"] != digest(start)}
        if shared := sorted(elsewhere & {key["seed"] for key in keys([rung], arms, lr, seeds)}):
            print(f"{rung}: seeds {shared} have rows of another start, which pair with no new one", flush=True)
    for key in keys(rungs, arms, lr, seeds):
        if has_row(results, **key):
            continue
        flags = "--rungs {rung} --arms {arm} --lr {lr:g} --seeds {seed}".format(**key)
        try:
            row = train_once(configure(**key), starts[key["rung"]], out, kept="_".join(map(str, key.values())))
        except Exception:  # a diverged or refused arm must not end the study
            failed.append(flags)
            (out / "log.txt").open("a").write(f"{flags}\n{traceback.format_exc()}\n")
            print(f"{flags}: failed, see {out / 'log.txt'}", flush=True)
            continue
        add_rows(results, key | {"command": f"python -m experiments.real_model run {flags}"} | row | now)
        print(f"{flags}: {row['sampled'][0]:.3f} -> {final(row):.3f}, {row['wall_seconds']:.0f} s", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {'; '.join(failed)}")


def start_of(rung: str, out: Path) -> Path:
    """Returns a folder with the reflection warm-up that the runs on a rung begin with; makes it if it is absent."""
    folder = out / f"start_{rung}"
    if not (folder / "digest.txt").exists():
        folder.mkdir(exist_ok=True)
        config = configure(rung, "grpo", LR, 0)
        config.seed = 0
        with log(out):
            params = initial_params(make_experiment(validate(config), folder), folder, Clock())
        # A hash of the checkpoint's files would not name the start, because equal parameters give other files.
        (folder / "digest.txt").write_text(_digest(*(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params))))
    return folder


def digest(folder: Path) -> str:
    """Returns the beginning of a hash of the parameters of a start, which differ between kinds of processors."""
    return (folder / "digest.txt").read_text()


def _digest(*parts: bytes) -> str:
    """Returns the first eight digits of a hash of the parts together."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()[:8]


def train_once(config: ConfigDict, start: Path, out: Path, kept: str) -> Row:
    """Trains from a start in a folder of its own, and returns what was measured; its records are moved to `out`/kept/`kept`."""
    workdir = out / f"run_{os.getpid()}"
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir()
    shutil.copytree(start / "reflection_warmup", workdir / "reflection_warmup", copy_function=os.link)
    shutil.copy(start / "reflection_warmup.json", workdir)
    try:
        with log(out):
            results = train(config, workdir)
            if results["steps"] < config.steps or not results["eval"]["final"]:
                raise SystemExit(f"the run ended at step {results['steps']} of {config.steps}: it has no result")
            values = config_json(validate(config))
            return measured(workdir, results) | {
                "start": digest(start), "config": _digest(json.dumps(values | {"seed": 0}, sort_keys=True).encode()),
            }  # fmt: skip
    finally:
        folder = out / "kept" / kept
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("config.json", "metrics.jsonl", "results.json", "rollouts"):
            if (workdir / name).exists():
                shutil.move(workdir / name, folder)
        shutil.rmtree(workdir)
