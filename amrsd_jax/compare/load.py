"""Loads rollouts that a run saved as Parquet, together with the run's experiment."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq

from amrsd_jax.compare.parameters import checkpoint_before
from amrsd_jax.config import Config
from amrsd_jax.experiment import Experiment, make_experiment
from amrsd_jax.records import Problem, Rollouts, Verdict
from amrsd_jax.runtime import workdir as workdirs
from amrsd_jax.runtime.rollouts import read_rollouts, rollout_files, unreadable
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.mixture import Mixture, label
from amrsd_jax.tasks.rows import RowTask
from amrsd_jax.tasks.verify import extras, judged, pad
from amrsd_jax.validate import validate


@dataclasses.dataclass(frozen=True)
class LoadedRollouts:
    """Rollouts of one step, and the experiment of the run that wrote them.

    Attributes:
      experiment: built from the run's config.
      workdir, file: the run's folder, and the file that was read.
      step: training steps that were done when the rollouts were sampled: one less than the file's own step.
      rollouts: sampler_logprobs holds the log-probabilities as recorded.
    """

    experiment: Experiment
    workdir: Path
    file: Path
    step: int
    rollouts: Rollouts


def load(source: Path | str, *, workdir: Path | str | None = None, step: int | None = None) -> LoadedRollouts:
    """Returns the rollouts of a run's folder, or of one Parquet file.

    Args:
      source: a workdir, or a file of its `rollouts/`.
      workdir: workdir of the run that wrote the file, where the file was moved.
      step: step whose file is read; None takes that of `choose`.

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: a row contradicts the run's config or task; names file, row, field and value.
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
    experiment = make_experiment(read_config(workdir), workdir)
    rows = read_rollouts(file).to_pylist()
    return LoadedRollouts(experiment, workdir, file, rows[0]["step"] - 1, make_rollouts(file, rows, experiment))


def choose(workdir: Path, step: int | None = None) -> Path:
    """Returns the file of a step; by default the one nearest to an earlier checkpoint, if possible with both verdicts.

    The fewer updates lie between the checkpoint and the rollouts, the closer are the scores to those of the run; of equally near
    files the last is taken (our choice). The first file is always exact: it was sampled from the parameters of step 0, which
    are kept.
    """
    files = rollout_files(workdir)
    if step is not None and files:
        if step not in files:
            raise ValueError(f"step = {step}: {workdir / 'rollouts'} has {', '.join(map(str, files))}")
        return files[step]
    files = {number: path for number, path in files.items() if not unreadable(path)}
    if not files:
        raise FileNotFoundError(f"{workdir / 'rollouts'}: no step_*.parquet that can be read")

    def merit(step):
        rewards = pq.read_table(files[step], columns=["reward"])["reward"].to_numpy()
        updates_missed = (step - 1) - (checkpoint_before(workdir, step - 1) or 0)
        return rewards.min() < rewards.max(), -updates_missed, step

    return files[max(files, key=merit)]


def read_config(workdir: Path) -> Config:
    """Returns the config of a run, validated. A mesh of more devices than there are is replaced by one device.

    Raises:
      FileNotFoundError: the folder holds no config.json.
      ValueError: it is not one of this package's configs.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name the run that wrote the rollouts with workdir")
    try:
        config = workdirs.read_config(workdir)
        mesh = config.mesh
        if abs(mesh.data) * mesh.fsdp * mesh.tensor > jax.device_count():
            mesh.update(data=1, fsdp=1, tensor=1)
        return validate(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def make_rollouts(file: Path, rows: list[dict], experiment: Experiment) -> Rollouts:
    """Returns N rows as rollouts: prompts are encoded and responses verified again, everything else is as recorded."""
    config, tokenizer = experiment.config.rollout, experiment.tokenizer
    if len(rows) % config.group:
        raise ValueError(f"{file}: {len(rows)} rows are not groups of rollout.group = {config.group}")
    known = find_problems(experiment.task, {row["problem_id"] for row in rows})
    problems, verdicts, prompts = [], [], []
    for i, row in enumerate(rows):
        where = f"{file} row {i}"
        _check_tokens(where, row, experiment)
        problems.append(_problem(where, row, known))
        prompts.append(experiment.prompt_ids(problems[i]))
        verdicts.append(_verdict(where, row, problems[i], prompts[i], experiment))
        if len(prompts[i]) > config.prompt_length:
            raise ValueError(
                f"{where}: question: {len(prompts[i])} tokens; rollout.prompt_length = {config.prompt_length}"
            )

    def column(name):
        return [row[name] for row in rows]

    tokens, length = column("tokens"), config.response_length
    return Rollouts(
        problems=tuple(problems),
        text=tuple(column("response")),
        verdicts=tuple(verdicts),
        finish_reason=tuple(column("finish_reason")),
        prompt=pad(prompts, config.prompt_length, np.int32),
        prompt_length=np.array([len(prompt) for prompt in prompts], np.int32),
        response=pad(tokens, length, np.int32),
        mask=pad([np.ones(len(ids)) for ids in tokens], length, np.float32),
        sampler_logprobs=pad(column("student_logprobs"), length, np.float32),
        reward=np.array(column("reward"), np.float32),
        first_error=np.array([column("first_error_start"), column("first_error_end")], np.int32).T,
        extras=extras(experiment.task, tokenizer, tokens, verdicts),
    )


def find_problems(task: Task, ids: set[str]) -> dict[str, Problem]:
    """Returns the training problems of these ids, with their reference solutions, which are not in the file.

    The ids of a task that never runs out end with the problem's index; of other tasks, all problems are searched.
    """
    if isinstance(task, Mixture):
        found: dict[str, Problem] = {}
        for name, one in task.tasks.items():
            own = {text.removeprefix(f"{name}/") for text in ids if text.startswith(f"{name}/")}
            labelled = (label(name, problem) for problem in find_problems(one, own).values())
            found |= {problem.id: problem for problem in labelled}
        return found

    if isinstance(task, RowTask):
        problems = task.rows("train")
    else:
        numbers = (int(match[0]) for name in ids if (match := re.search(r"\d+$", name)))
        problems = (task.problem("train", number) for number in numbers)
    return {problem.id: problem for problem in problems if problem.id in ids}


def _problem(where: str, row: dict, known: dict[str, Problem]) -> Problem:
    """Returns a row's problem, and checks that it is the recorded one."""
    problem = known.get(row["problem_id"])
    if problem is None:
        raise ValueError(f"{where}: problem_id: {row['problem_id']!r} is not a training problem of the run's task")
    for field in ("question", "answer"):
        if row[field] != getattr(problem, field):
            raise ValueError(
                f"{where}: {field}: {row[field]!r}; the run's task has {getattr(problem, field)!r} for {problem.id!r}"
            )
    return problem


def _verdict(where: str, row: dict, problem: Problem, prompt: list[int], experiment: Experiment) -> Verdict:
    """Returns the verifier's verdict, and checks that its reward is the recorded one.

    Where the run permuted rewards, or one of the two timed out, it has the recorded reward.
    """
    stop = experiment.config.rollout.stop
    verdict = judged(experiment.task, experiment.tokenizer, prompt, problem, row["response"], stop=stop)
    late = "timed out" in row["verdict"] or verdict.timed_out  # which depends on what else the machine did
    if experiment.config.reward.permute or late:
        return dataclasses.replace(verdict, reward=row["reward"], message=row["verdict"], scores=dict(row["scores"]))
    if not abs(verdict.reward - row["reward"]) <= 1e-6:  # nan is another reward
        raise ValueError(f"{where}: reward: {row['reward']}; the task's verifier gives {verdict.reward}")
    return verdict


def _check_tokens(where: str, row: dict, experiment: Experiment) -> None:
    tokens, longest = row["tokens"], experiment.config.rollout.response_length
    size = experiment.policy.architecture.vocab_size  # above the tokenizer's: a policy can sample ids that decode to ""
    if not 0 < len(tokens) <= longest:
        raise ValueError(f"{where}: tokens: {len(tokens)} of them; expected 1 to rollout.response_length = {longest}")
    if len(row["student_logprobs"]) != len(tokens):
        raise ValueError(f"{where}: student_logprobs: {len(row['student_logprobs'])} values for {len(tokens)} tokens")
    if not 0 <= min(tokens) <= max(tokens) < size:
        raise ValueError(f"{where}: tokens: {min(tokens)} to {max(tokens)}; the run's policy has {size}")
    text = experiment.tokenizer.decode(tokens, skip_special_tokens=True)
    if text != row["response"]:
        raise ValueError(f"{where}: tokens: they decode to {text!r}; the response is {row['response']!r}")
