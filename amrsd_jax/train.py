"""The training loop: `train` runs an experiment, `training_step` one step of the algorithm."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import numpy as np
from jaxtyping import ScalarLike

from amrsd_jax import plan, processes, rng
from amrsd_jax.config import Config, ConfigError
from amrsd_jax.credit import assign
from amrsd_jax.evaluate.files import write_answers
from amrsd_jax.experiment import Experiment, make_experiment
from amrsd_jax.files import atomic_write
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import make_batches
from amrsd_jax.learning.state import policy_params
from amrsd_jax.learning.step import TrainStep, make_train_step
from amrsd_jax.policy import Params
from amrsd_jax.records import StepRecord, TrainState
from amrsd_jax.rollout import generate
from amrsd_jax.runtime import monitor
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.runtime.console import bar, note, say
from amrsd_jax.runtime.interrupt import Interrupt
from amrsd_jax.runtime.metrics import Metrics
from amrsd_jax.runtime.rollouts import write_rollouts
from amrsd_jax.runtime.summary import one_line, summary, write_results
from amrsd_jax.runtime.workdir import claim, write_environment
from amrsd_jax.scoring.score import score
from amrsd_jax.start import FixedPolicies, Progress, start_or_resume
from amrsd_jax.tasks import data_report
from amrsd_jax.validate import validate


def train(config: ml_collections.ConfigDict, workdir: Path) -> dict | None:
    """Trains from a config, or resumes the run in `workdir`; returns the content of `results.json`, None on all but process 0.

    Raises:
      ConfigError: the config is wrong, or the workdir holds a run with another config; no step has been computed.
      FloatingPointError: gradients were not finite in `optimizer.max_skipped` steps in a row.
    """
    begin = time.perf_counter()
    config = validate(config)
    try:
        plan.require(config, workdir)
        experiment = make_experiment(config, workdir)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    note(f"workdir {workdir}" + (" (resuming)" if claim(workdir, config) else ""))
    describe(experiment)
    describe_data(experiment, workdir)
    use_compilation_cache(workdir)
    write_environment(workdir)
    save_tokenizer(experiment, workdir)

    clock = Clock()
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
    state, fixed, progress = start_or_resume(experiment, workdir, checkpoints, clock)
    clock = Clock(progress.seconds or clock.total)  # a resumed run goes on from the seconds of its checkpoint
    metrics = Metrics(workdir, progress.step if checkpoints.latest() is not None else -1)  # -1 keeps no line
    update = make_train_step(
        experiment.policy, experiment.optimizer, experiment.schedule, experiment.objective, config.learning,
        experiment.mesh, teacher=experiment.teacher,
    )  # fmt: skip
    begin -= progress.wall_seconds

    def due(every: int) -> bool:
        """Returns whether an action with period `every` is due now; after the last step every action is."""
        last = progress.step == config.steps or progress.stopped is not None
        return last or (every > 0 and progress.step % every == 0)

    def save(accuracy: float | None = None) -> None:
        with clock.phase("checkpoint"):
            metrics.sync()
            progress.seconds, progress.wall_seconds = clock.total, time.perf_counter() - begin
            if monitor.healthy(progress.tracks, config.monitor):
                progress.good = progress.step
            checkpoints.save(progress.step, state, dataclasses.asdict(progress), accuracy, progress.good)

    with Interrupt() as interrupt, jax.transfer_guard("disallow"):
        if checkpoints.latest() is None:
            metrics.write("eval", 0, evaluate(experiment, policy_params(state), clock, workdir, 0, lambda every: True))
            if monitor.rolls_back(config.monitor):
                save()

        progress_bar = bar(total=config.steps, initial=progress.step, unit="step")
        while progress.step < config.steps and not interrupt.requested and not progress.stopped:
            clock.lap()
            state, record, update_metrics = training_step(experiment, update, state, fixed, progress, clock)
            state, progress, signals = watch(config, state, progress, checkpoints, record, update_metrics)
            if progress.step == 1 or due(config.report.rollouts_every):
                with clock.phase("report"):
                    path = workdir / "rollouts" / f"step_{progress.step:05d}.parquet"
                    write_rollouts(path, progress.step, config.rollout.group, experiment.tokenizer, record)
            metrics.write_timeline(progress.step, clock.timeline(config.rollout.slots))
            row = summary(
                record, update_metrics, clock.lap(),
                group=config.rollout.group, architecture=experiment.policy.architecture,
            )  # fmt: skip
            row |= signals | {"tokens/total": progress.tokens}
            metrics.write("train", progress.step, row)
            progress_bar.update()
            say(one_line(progress.step, config.steps, row))

            accuracy = None
            if due(config.evaluation.every):
                values = evaluate(experiment, policy_params(state), clock, workdir, progress.step, due)
                metrics.write("eval", progress.step, values)
                accuracy = values.get("eval/validation/sampled", values["eval/sampled"])
            interrupt.poll()
            progress.skipped = progress.skipped + 1 if row["updates/skipped"] else 0
            diverged = progress.skipped >= config.optimizer.max_skipped
            if due(config.checkpoint.every) or interrupt.requested or diverged or progress.step in progress.rollbacks:
                save(accuracy)
            if diverged:
                checkpoints.close()
                raise FloatingPointError(
                    f"step {progress.step}: gradients were not finite in {progress.skipped} steps in a row "
                    f"(optimizer.max_skipped = {config.optimizer.max_skipped}); those updates were not applied"
                )
        progress_bar.close()
    with clock.phase("checkpoint"):
        checkpoints.close()
    metrics.close()
    if interrupt.requested:
        note(f"{interrupt.requested}: saved at step {progress.step}; the same command continues from there")
    if progress.stopped:
        note("stopped by the collapse monitor at step {step}: {signal} {value:.3g}".format(**progress.stopped))
    return write_results(
        workdir, progress.step, clock.total, time.perf_counter() - begin,
        last=config.evaluation.last, stopped=progress.stopped, rollbacks=progress.rollbacks,
    )  # fmt: skip


def training_step(
    experiment: Experiment, update: TrainStep, state: TrainState, fixed: FixedPolicies, progress: Progress, clock: Clock
) -> tuple[TrainState, StepRecord, list[dict[str, ScalarLike]]]:
    """Runs one step of the algorithm and advances `progress`; returns the state, the step's record and each update's metrics."""
    config, rule, scorer = experiment.config, experiment.rule, experiment.scorer
    step, params = progress.step, policy_params(state)

    # 1, 2: sample and verify G responses to each of B problems, and reflect on those whose credit a reflection can change
    batch = generate(experiment, experiment.sampler_params(params), fixed.critic, step, progress.position, clock)
    rollouts, contexts = batch.rollouts, batch.contexts

    # 3: log-probabilities of the same response tokens under student and teacher
    with clock.phase("score"):
        student, reference = (experiment.policy, params), (experiment.policy, fixed.reference)
        teacher = (experiment.teacher.model, experiment.teacher.params(state, params)) if rule.reads_gap else None
        all_rows = config.loss.old_logprobs == "trainer" or rule.student
        student_scores = scorer.score_rollouts(*student, rollouts) if all_rows else None
        reference_scores = scorer.score_rollouts(*reference, rollouts) if config.loss.kl else None
        logprobs = score(scorer, student, teacher, rollouts, contexts, student_scores)
        del student, teacher, params  # the update donates the state

    # 4: gated advantage shaping, one advantage per token
    with clock.phase("credit"):
        noise = rng.host(config.seed, "credit", step).random(config.rows, np.float32)
        credit = assign(
            rule, config.credit.args, step, batch.advantage, rollouts, logprobs, noise=noise, memory=progress.memory
        )

    # 5: the sharded updates
    with clock.phase("update"):
        batches = make_batches(
            rollouts, credit,
            old_logprobs=student_scores[0] if config.loss.old_logprobs == "trainer" else None,
            reference_logprobs=reference_scores[0] if config.loss.kl else None,
            contexts=contexts if rule.distill else None,
            minibatches=config.learning.minibatches, mask_truncated=config.loss.mask_truncated,
        )  # fmt: skip
        metrics = []
        for rows in batches:
            state, update_metrics = update(state, rows)
            metrics.append(update_metrics)
        state, metrics = experiment.teacher.follow(state, step + 1), jax.device_get(metrics)

    progress.step, progress.position, progress.memory = step + 1, batch.position, list(credit.memory)
    progress.tokens += int(rollouts.mask.sum())
    return state, StepRecord(rollouts, contexts, logprobs, credit, batch.data_metrics), metrics


def watch(
    config: Config,
    state: TrainState,
    progress: Progress,
    checkpoints: Checkpoints,
    record: StepRecord,
    update_metrics: list[dict[str, ScalarLike]],
) -> tuple[TrainState, Progress, dict[str, float | None]]:
    """Passes a step to the collapse monitor and carries out its action: none, a warning, a rollback, or the end of the run.

    A rollback restores the state and progress of the last good checkpoint, except for the step, the position in the data and
    the tokens so far, which continue: no prompt and no random number is used twice.

    Returns:
      the state and progress to continue from, and the monitor's metrics.
    """
    measured = monitor.measure(record, update_metrics, config.monitor, config.rollout.group)
    progress.tracks, signals, alarms = monitor.observe(progress.tracks, measured, config.monitor)
    for alarm in alarms:
        say(alarm.line(progress.step))
    action = alarms[0].action if alarms else "off"
    if action == "stop" or (action == "rollback" and len(progress.rollbacks) == config.monitor.rollbacks):
        progress.stopped = alarms[0].record(progress.step)
    elif action == "rollback":
        say(f"step {progress.step}: back to the parameters of step {progress.good}")
        state, restored = checkpoints.replace(state, progress.good)
        continued = dict(
            step=progress.step, position=progress.position, tokens=progress.tokens,
            rollbacks=[*progress.rollbacks, progress.step],
        )  # fmt: skip
        progress = Progress(**restored | continued)
    return state, progress, signals


def evaluate(
    experiment: Experiment, params: Params, clock: Clock, workdir: Path, step: int, due: Callable[[int], bool]
) -> dict[str, float]:
    """Returns the metrics of the benchmarks that are due, and writes their answers.

    Random keys do not depend on the step.
    """
    values = {}
    with clock.phase("evaluate"):
        sampler_params = experiment.sampler_params(params)
        for benchmark in experiment.evaluator.benchmarks:
            if due(benchmark.every):
                evaluation = experiment.evaluator(benchmark, sampler_params)
                path = workdir / "evaluations" / f"step_{step:05d}" / f"{benchmark.name}.parquet"
                write_answers(path, benchmark, evaluation.answers)
                values |= {f"eval/{benchmark.prefix}{name}": value for name, value in evaluation.metrics.items()}
    return processes.broadcast(values)


# ---------------------------------------------------------------- the start of a run


def describe(experiment: Experiment) -> None:
    """Prints the rule, the task, the number of parameters, the devices, and which parameters could not be split."""
    config, policy, mesh = experiment.config, experiment.policy, experiment.mesh
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    note(f"{config.credit.rule} on {config.task.name}, {policy.architecture.parameters():,} parameters")
    size, known = policy.architecture.vocab_size, len(experiment.tokenizer)
    if size > 2 * known:
        note(
            f"  the tokenizer has {known:,} of the model's {size:,} ids: the others are never sampled (architecture.vocab_size)"
        )
    note(f"{jax.device_count()} x {jax.devices()[0].device_kind}, mesh {shape}")
    for line in meshes.replicated_by_size(policy.abstract_params(), mesh):
        note(f"  {line}")


@processes.only_first
def describe_data(experiment: Experiment, workdir: Path) -> None:
    """Prints a report on the task's rows and writes it to `data.json`, unless that file exists."""
    path = workdir / "data.json"
    if path.exists():
        return
    report = data_report.report(experiment.task, experiment.prompt_ids, experiment.config.rollout.prompt_length)
    for line in data_report.lines(report):
        note(line)
    if report:
        atomic_write(path, json.dumps(report, indent=2) + "\n")


@processes.only_first
def save_tokenizer(experiment: Experiment, workdir: Path) -> None:
    """Saves the tokenizer in the workdir, from which a resumed run loads it."""
    folder = workdir / "tokenizer"
    if not folder.exists():
        atomic_write(folder, experiment.tokenizer.save_pretrained)
