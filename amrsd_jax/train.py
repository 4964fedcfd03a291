"""The training loop: `train` runs an experiment, `training_step` one step of the algorithm."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import ScalarLike

from amrsd_jax import interrupt, plan, processes, rng
from amrsd_jax.config import Config
from amrsd_jax.credit import assign, mean_gaps
from amrsd_jax.evaluate.files import forget_finished, read_finished, write_answers, write_finished
from amrsd_jax.evaluate.measure import by_set
from amrsd_jax.experiment import Experiment, make_experiment
from amrsd_jax.interrupt import Interrupt, Interrupted
from amrsd_jax.learning.batch import make_batches
from amrsd_jax.learning.state import policy_params
from amrsd_jax.learning.step import TrainStep, make_train_step
from amrsd_jax.policy import Params
from amrsd_jax.preflight import check_prompts, describe, describe_data, name_unreadable, read_rows, save_tokenizer
from amrsd_jax.records import StepRecord, TrainState
from amrsd_jax.reflection.contexts import null_contexts
from amrsd_jax.reflection.quotes import quoted_spans
from amrsd_jax.rollout import generate
from amrsd_jax.runtime import monitor, trackers
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.runtime.console import bar, note, say, track
from amrsd_jax.runtime.environment import write_environment
from amrsd_jax.runtime.lines import StepLines, evaluation_line
from amrsd_jax.runtime.metrics import Metrics
from amrsd_jax.runtime.results import write_results
from amrsd_jax.runtime.rollouts import write_rollouts
from amrsd_jax.runtime.summary import summary
from amrsd_jax.runtime.workdir import claim, locked, release, require_own
from amrsd_jax.scoring.score import null_gap, score
from amrsd_jax.sections import ConfigError
from amrsd_jax.start import FixedPolicies, Progress, start_or_resume
from amrsd_jax.validate import validate


class Diverged(Exception):
    """Tells that a run's updates are no longer finite and were not applied."""


def train(config: ml_collections.ConfigDict, workdir: Path) -> dict | None:
    """Trains from a config, or resumes the run in `workdir`; returns the content of `results.json`, None on all but process 0.

    Everything that can be checked before a computation is checked before the workdir is claimed, and a run that is refused
    leaves a workdir that a corrected config can use.

    Raises:
      ConfigError: the config is wrong, or the workdir holds a run with another config or other rows, or another process
        writes there; no step has been computed.
      Diverged: updates were not finite in `optimizer.max_skipped` steps in a row.
      OSError: a file could not be written or read; the same command continues from the last checkpoint.
    """
    begin = time.perf_counter()
    config = validate(config)
    require_own(workdir, config)
    trackers.require(config.tracker)
    try:
        plan.require(config, workdir)
        experiment = make_experiment(config, workdir)
        check_prompts(experiment)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    with locked(workdir):
        return train_experiment(experiment, workdir, begin)


def train_experiment(experiment: Experiment, workdir: Path, begin: float) -> dict | None:
    """Trains in a locked workdir, see `train`; `begin` is the time of the start, in seconds of `time.perf_counter`."""
    config = experiment.config
    resumed = claim(workdir, config, read_rows(experiment))
    note(f"workdir {workdir}" + (" (resuming)" if resumed else ""))
    tracker = trackers.start(config.tracker, workdir)  # before a warm-up, since it may ask for an account
    describe(experiment)
    describe_data(experiment, workdir)
    use_compilation_cache(workdir)

    clock = Clock()
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
    try:
        state, fixed, progress = start_or_resume(experiment, workdir, checkpoints, clock)
    except ConfigError:
        if checkpoints.latest() is None:
            release(workdir)
        raise
    except Interrupted as signal:
        checkpoints.close()
        note(f"{signal}: stopped before the first step; the same command starts again")
        return write_results(
            workdir, 0, clock.total, time.perf_counter() - begin, last=config.evaluation.last, over=False
        )
    write_environment(workdir)
    save_tokenizer(experiment, workdir)
    clock = Clock(progress.seconds or clock.total)  # a resumed run goes on from the seconds of its checkpoint
    name_unreadable(workdir, progress.step)
    forget_finished(workdir / "evaluations", but=progress.step)  # later steps may be other than before
    metrics = Metrics(workdir, progress.step if checkpoints.latest() is not None else -1, tracker)  # -1 keeps no line
    update = make_train_step(
        experiment.policy, experiment.optimizer, experiment.schedule, experiment.objective, config.learning,
        experiment.mesh, teacher=experiment.teacher,
    )  # fmt: skip
    begin -= progress.wall_seconds

    def due(every: int) -> bool:
        """Returns whether an action with period `every` is due now; before the first and after the last step every action is."""
        ends = progress.step in (0, config.steps) or progress.stopped is not None
        return ends or (every > 0 and progress.step % every == 0)

    def save(evaluation: dict[str, Any] | None = None) -> None:
        with clock.phase("checkpoint"):
            metrics.sync()
            progress.seconds, progress.wall_seconds = clock.total, time.perf_counter() - begin
            if monitor.healthy(progress.tracks, config.monitor):
                progress.good = progress.step
            progress.compare(evaluation)
            best = progress.best and progress.best[0]
            checkpoints.save(progress.step, state, dataclasses.asdict(progress), keep=(best, progress.good))

    def evaluate_now() -> dict[str, float] | None:
        """Makes and records the evaluation that is due; a signal leaves it to the resumed run."""
        try:
            values = evaluate(experiment, policy_params(state), clock, workdir, progress, due)
        except Interrupted:
            return None
        metrics.write("eval", progress.step, values)
        forget_finished(workdir / "evaluations")
        return values

    with Interrupt() as signals, jax.transfer_guard("disallow"):
        fresh = checkpoints.latest() is None
        evaluation = metrics.evaluation(progress.step)
        if due(config.evaluation.every) and evaluation is None:
            evaluation = evaluate_now()  # the one before training, or one that a signal interrupted
        if not fresh:
            progress.compare(evaluation)  # the checkpoint does not know an evaluation that was made after it
        if fresh and monitor.rolls_back(config.monitor):
            save(evaluation)

        progress_bar = bar(total=config.steps, initial=progress.step, unit="step")
        lines = StepLines(config, experiment.rule)
        diverged = progress.skipped >= config.optimizer.max_skipped
        while progress.step < config.steps and not (signals.requested or progress.stopped or diverged):
            clock.lap()
            try:
                state, record, update_metrics = training_step(experiment, update, state, fixed, progress, clock)
            except Interrupted:  # the resumed run makes the step again, with the same bits
                if checkpoints.latest() != progress.step:
                    save(evaluation)
                break
            state, progress, monitored = watch(config, state, progress, checkpoints, record, update_metrics)
            if progress.step == 1 or due(config.report.rollouts_every):
                with clock.phase("report"):
                    path = workdir / "rollouts" / f"step_{progress.step:05d}.parquet"
                    rows = write_rollouts(path, progress.step, config.rollout.group, experiment.tokenizer, record)
                    metrics.rollouts(progress.step, rows)
            metrics.write_timeline(progress.step, clock.timeline(config.rollout.slots))
            row = summary(
                record, update_metrics, clock.lap(),
                group=config.rollout.group, architecture=experiment.policy.architecture, devices=experiment.mesh.size,
            )  # fmt: skip
            row |= monitored | {"tokens/total": progress.tokens}
            metrics.write("train", progress.step, row)
            progress_bar.update()
            for line in lines(progress.step, row, record.contexts):
                say(line)

            evaluation = evaluate_now() if due(config.evaluation.every) else None
            signals.poll()
            progress.skipped = progress.skipped + 1 if row["updates/skipped"] else 0
            diverged = progress.skipped >= config.optimizer.max_skipped
            if due(config.checkpoint.every) or signals.requested or diverged or progress.step in progress.rollbacks:
                save(evaluation)
        progress_bar.close()
        with clock.phase("checkpoint"):
            checkpoints.close()
    if signals.requested:
        at = "before the first step" if not progress.step else f"saved at step {progress.step}"
        note(f"{signals.requested}: {at}; the same command continues from there")
    if progress.stopped:
        note("stopped by the collapse monitor at step {step}: {signal} {value:.3g}".format(**progress.stopped))
    results = write_results(
        workdir, progress.step, clock.total, time.perf_counter() - begin,
        last=config.evaluation.last, over=not diverged and (progress.step == config.steps or bool(progress.stopped)),
        stopped=progress.stopped, rollbacks=progress.rollbacks,
    )  # fmt: skip
    metrics.close(results)
    if diverged:
        raise Diverged(
            f"step {progress.step}: updates were not finite in {progress.skipped} steps in a row "
            f"(optimizer.max_skipped = {config.optimizer.max_skipped}); those updates were not applied"
        )
    return results


def training_step(
    experiment: Experiment, update: TrainStep, state: TrainState, fixed: FixedPolicies, progress: Progress, clock: Clock
) -> tuple[TrainState, StepRecord, list[dict[str, ScalarLike]]]:
    """Runs one step of the algorithm and advances `progress`; returns the state, the step's record and each update's metrics.

    Raises:
      Interrupted: a signal was received while responses were sampled; state and `progress` are as before.
    """
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
    null = None  # a control: the teacher's prompt without a reflection
    if teacher and len(contexts.rows) and measures_null(config, step):
        with clock.phase("null_control"):
            empty = null_contexts(experiment.context_settings, rollouts, contexts.rows.tolist())
            null = null_gap(scorer, teacher, rollouts, empty, logprobs)
    del student, teacher, params  # the update donates the state

    # 4: gated advantage shaping, one advantage per token
    with clock.phase("credit"):
        quoted = quoted_spans(experiment.tokenizer, rollouts, contexts) if rule.quotes else None
        noise = rng.host(config.seed, "credit", step).random(config.rows, np.float32)
        credit = assign(
            rule, config.credit.args, step, batch.advantage, rollouts, logprobs,
            group=config.rollout.group, mask_truncated=config.loss.mask_truncated,
            quoted=quoted, noise=noise, memory=progress.memory,
        )  # fmt: skip
        if null is not None:
            means = mean_gaps(null, rollouts, logprobs.scored)
            metrics = credit.metrics | {f"null_gap_{name}": value for name, value in means.items()}
            credit = dataclasses.replace(credit, metrics=metrics)

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
        for rows in update.with_old_logprobs(state, batches):
            state, update_metrics = update(state, rows)
            metrics.append(update_metrics)
        state, metrics = experiment.teacher.follow(state, step + 1), jax.device_get(metrics)

    progress.step, progress.position, progress.memory = step + 1, batch.position, list(credit.memory)
    progress.tokens += batch.data_metrics["tokens/sampled"]
    return state, StepRecord(rollouts, contexts, logprobs, credit, batch.data_metrics, null, all_rows), metrics


def measures_null(config: Config, step: int) -> bool:
    """Returns whether the null control is made at a step, counted from 0. It is made at the first step and at every k-th."""
    every = config.reflection.null_control_every
    return every > 0 and (step == 0 or (step + 1) % every == 0)


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
    if action == "rollback" and (fault := checkpoints.damage(progress.good)):
        say(f"step {progress.step}: no way back, since the checkpoint of step {progress.good} is damaged: {fault}")
        action = "stop"
    if action == "stop" or (action == "rollback" and len(progress.rollbacks) == config.monitor.rollbacks):
        progress.stopped = alarms[0].record(progress.step)
    elif action == "rollback":
        say(f"step {progress.step}: back to the parameters of step {progress.good}")
        state, restored = checkpoints.replace(state, progress.good)
        continued = dict(
            step=progress.step, position=progress.position, tokens=progress.tokens,
            rollbacks=[*progress.rollbacks, progress.step], best=progress.best,
        )  # fmt: skip
        progress = Progress(**restored | continued)
    return state, progress, signals


def evaluate(
    experiment: Experiment, params: Params, clock: Clock, workdir: Path, progress: Progress, due: Callable[[int], bool]
) -> dict[str, float]:
    """Returns the metrics of the benchmarks that are due, prints a line about each, and writes their answers.

    Random keys do not depend on the step. Benchmarks that were finished when a signal interrupted the same evaluation are not
    repeated.

    Raises:
      Interrupted: a signal was received.
    """
    folder = workdir / "evaluations" / f"step_{progress.step:05d}"
    finished = read_finished(folder)
    with clock.phase("evaluate"):
        interrupt.check()
        sampler_params = experiment.sampler_params(params)
        for benchmark in experiment.evaluator.benchmarks:
            if due(benchmark.every) and benchmark.name not in finished:
                evaluation = experiment.evaluator(benchmark, sampler_params, track)
                write_answers(folder / f"{benchmark.name}.parquet", benchmark, evaluation.answers)
                values = {f"eval/{benchmark.prefix}{name}": value for name, value in evaluation.metrics.items()}
                finished[benchmark.name] = processes.broadcast(values)
                write_finished(folder, finished)
                for name, metrics in by_set(benchmark.name, evaluation.metrics).items():
                    say(evaluation_line(progress.step, name, metrics))
    return {name: value for values in finished.values() for name, value in values.items()}
