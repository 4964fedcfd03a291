"""Frozen rollouts: what a run dumped into a Parquet file, made into records again, with the run's parts beside them."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ml_collections import ConfigDict

from amrsd_jax import config as configuration
from amrsd_jax.build import Run, build
from amrsd_jax.checks import validate
from amrsd_jax.compare.parameters import checkpoint_before
from amrsd_jax.records import Rollouts
from amrsd_jax.runtime import workdir as workdirs
from amrsd_jax.tasks.base import Problem, Task, Verdict
from amrsd_jax.tasks.verify import pad

COLUMNS = (
    "step", "problem_id", "question", "answer", "response", "reward", "verdict", "finish_reason", "tokens",
    "logp_student", "first_error_start", "first_error_end",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Rollouts of one step, and the run that wrote them.

    Attributes:
      run: its parts, built from its config.
      workdir, file: where it lies, and which file was read.
      step: training steps that were done when the rollouts were sampled: a file's own step less one.
      rollouts: logp holds the log-probabilities as recorded; those of the sampler were not kept, so logp_plain equals it.
    """

    run: Run
    workdir: Path
    file: Path
    step: int
    rollouts: Rollouts


def load(source: Path | str, *, workdir: Path | str | None = None, step: int | None = None) -> Frozen:
    """The rollouts of a run's folder, or of one Parquet file.

    Args:
      source: a workdir, or a file of its `rollouts/`.
      workdir: of the run that wrote a file which no longer lies in it.
      step: which file of a workdir; None takes `choose`'s.

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: a file's content is not what it should be; the message names file, field and value.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if source.is_dir():
        workdir, file = source, choose(source, step)
    elif step is not None:
        raise ValueError(f"step = {step}: {source} is one file; a step chooses among those of a workdir")
    else:
        workdir, file = Path(workdir or source.parent.parent), source
    run = build(read_config(workdir), workdir)
    table = read_table(file)
    return Frozen(run, workdir, file, table[0]["step"] - 1, read_rollouts(file, table, run))


def dumps(workdir: Path) -> dict[int, Path]:
    """The files of a workdir's rollouts by their step, in its order."""
    found = {}
    for path in (workdir / "rollouts").glob("step_*.parquet"):
        if match := re.fullmatch(r"step_(\d+)", path.stem):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def choose(workdir: Path, step: int | None = None) -> Path:
    """The file of a step; without one the file whose policy is best known, among those with successes and failures.

    Parameters are kept for few steps only. The fewer updates lie between the nearest checkpoint before a dump and the
    dump itself, the closer are the scores to what the run would have seen; of equally close dumps the last is taken
    (our choice). The first dump is always exact: it was sampled from the parameters at step 0, which are kept.
    """
    files = dumps(workdir)
    if not files:
        raise FileNotFoundError(f"{workdir / 'rollouts'}: no step_*.parquet")
    if step is not None:
        if step not in files:
            raise ValueError(f"step = {step}: {workdir / 'rollouts'} has {', '.join(map(str, files))}")
        return files[step]

    def merit(step):
        rewards = pq.read_table(files[step], columns=["reward"])["reward"].to_numpy()
        updates_missed = (step - 1) - (checkpoint_before(workdir, step - 1) or 0)
        return rewards.min() < rewards.max(), -updates_missed, step

    return files[max(files, key=merit)]


def read_config(workdir: Path) -> ConfigDict:
    """The resolved config of a run. A mesh that this machine has not devices for becomes one device.

    Raises:
      FileNotFoundError: the folder holds no config.json.
      ValueError: it is not one of this package's configs.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the run that wrote the rollouts with workdir")
    try:
        config = workdirs.read_config(workdir)
        validate(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    mesh = config.mesh
    if abs(mesh.data) * mesh.fsdp * mesh.tensor > jax.device_count():
        mesh.update(data=1, fsdp=1, tensor=1)
    return configuration.resolve(config)


def read_table(file: Path) -> list[dict]:
    """The rows of a rollout file, with the columns that are needed."""
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: not a Parquet file: {str(error).splitlines()[0]}") from error
    if missing := set(COLUMNS) - set(table.column_names):
        raise ValueError(f"{file}: no column {', '.join(sorted(missing))}")
    if not table.num_rows:
        raise ValueError(f"{file}: no rows")
    return table.select(list(COLUMNS)).to_pylist()


def read_rollouts(file: Path, table: list[dict], run: Run) -> Rollouts:
    """Rollouts of N rows: prompts encoded again, verdicts asked for again, everything else as it was written down."""
    config = run.config.rollout
    if len(table) % config.group:
        raise ValueError(f"{file}: {len(table)} rows are not groups of rollout.group = {config.group}")
    known = find_problems(run.task, {row["problem_id"] for row in table})
    problems, verdicts, prompts = [], [], []
    for i, row in enumerate(table):
        where = f"{file} row {i}"
        _check_tokens(where, row, run)
        problems.append(_problem(where, row, known))
        verdicts.append(_verdict(where, row, problems[i], run))
        prompts.append(run.encode(problems[i]))
        if len(prompts[i]) > config.prompt_length:
            raise ValueError(
                f"{where}: question: {len(prompts[i])} tokens; rollout.prompt_length = {config.prompt_length}"
            )

    def column(name):
        return [row[name] for row in table]

    logp = pad(column("logp_student"), config.response_length, np.float32)
    return Rollouts(
        problems=tuple(problems),
        text=tuple(column("response")),
        verdicts=tuple(verdicts),
        finish_reason=tuple(column("finish_reason")),
        prompt=pad(prompts, config.prompt_length, np.int32),
        prompt_length=np.array([len(prompt) for prompt in prompts], np.int32),
        response=pad(column("tokens"), config.response_length, np.int32),
        mask=pad([np.ones(len(tokens)) for tokens in column("tokens")], config.response_length, np.float32),
        logp=logp,
        logp_plain=logp,
        reward=np.array(column("reward"), np.float32),
        first_error=np.array([column("first_error_start"), column("first_error_end")], np.int32).T,
    )


def find_problems(task: Task, ids: set[str]) -> dict[str, Problem]:
    """The training problems of these ids, with their reference solutions, which rollouts do not carry.

    A task without an end numbers its problems in the id; of any other all problems are looked at.
    """

    def numbers():
        if (size := task.size("train")) is not None:
            return range(size)
        return (int(found[0]) for name in ids if (found := re.search(r"\d+$", name)))

    problems = (task.problem("train", number) for number in numbers())
    return {problem.id: problem for problem in problems if problem.id in ids}


def _problem(where: str, row: dict, known: dict[str, Problem]) -> Problem:
    problem = known.get(row["problem_id"])
    if problem is None:
        raise ValueError(f"{where}: problem_id: {row['problem_id']!r} is no training problem of the run's task")
    for field in ("question", "answer"):
        if row[field] != getattr(problem, field):
            raise ValueError(
                f"{where}: {field}: {row[field]!r}; the run's task has {getattr(problem, field)!r} for {problem.id!r}"
            )
    return problem


def _verdict(where: str, row: dict, problem: Problem, run: Run) -> Verdict:
    """The verifier's judgement, which must be the recorded one, unless the run permuted its rewards."""
    verdict = run.task.verify(problem, row["response"])
    if run.config.reward.permute:
        return dataclasses.replace(verdict, reward=row["reward"], message=row["verdict"])
    if abs(verdict.reward - row["reward"]) > 1e-6:
        raise ValueError(f"{where}: reward: {row['reward']}; the task's verifier gives {verdict.reward}")
    return verdict


def _check_tokens(where: str, row: dict, run: Run) -> None:
    tokens, longest = row["tokens"], run.config.rollout.response_length
    size = (
        run.policy.architecture.vocab_size
    )  # more than the tokenizer's entries: a policy can draw what reads as nothing
    if not 0 < len(tokens) <= longest:
        raise ValueError(f"{where}: tokens: {len(tokens)} of them; expected 1 to rollout.response_length = {longest}")
    if len(row["logp_student"]) != len(tokens):
        raise ValueError(f"{where}: logp_student: {len(row['logp_student'])} values for {len(tokens)} tokens")
    if not 0 <= min(tokens) <= max(tokens) < size:
        raise ValueError(f"{where}: tokens: {min(tokens)} to {max(tokens)}; the run's policy has {size}")
    text = run.tokenizer.decode(tokens, skip_special_tokens=True)
    if text != row["response"]:
        raise ValueError(f"{where}: tokens: they read {text!r}; its response is {row['response']!r}")
