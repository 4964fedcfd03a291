"""The training loop: sample, verify, reflect, score, assign credit, learn. Read `train` first; it is the algorithm."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from amrsd_jax import plan, processes, rng
from amrsd_jax.build import Run, build
from amrsd_jax.checks import ConfigError, validate
from amrsd_jax.config import resolve
from amrsd_jax.credit.assign import advantages, assign
from amrsd_jax.draw import draw
from amrsd_jax.evaluate.files import write_answers
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import make_batches
from amrsd_jax.learning.step import make_train_step
from amrsd_jax.policy import Params
from amrsd_jax.records import Made, Rollouts, TrainState
from amrsd_jax.runtime import monitor
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.runtime.interrupt import Interrupt
from amrsd_jax.runtime.metrics import Metrics
from amrsd_jax.runtime.rollouts import write_rollouts
from amrsd_jax.runtime.summary import bar, note, one_line, say, summary, write_results
from amrsd_jax.runtime.workdir import claim
from amrsd_jax.scoring.score import score, score_rows
from amrsd_jax.start import Frozen, Progress, start_or_resume
from amrsd_jax.tasks import data_report


def train(config: ConfigDict, workdir: Path) -> dict | None:
    """Runs an experiment from its config, or resumes it, and returns what it writes to `results.json` (None but on process 0).

    Raises:
      ConfigError: the config is wrong, or the workdir holds a run of another one; nothing has been computed.
      FloatingPointError: `optimizer.max_skipped` updates in a row had gradients that are not finite.
    """
    begin = time.perf_counter()
    validate(config)
    config = resolve(config)
    try:
        plan.require(config, workdir)
        run = build(config, workdir)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    note(f"workdir {workdir}" + (" (resuming)" if claim(workdir, config) else ""))
    describe(run)
    describe_data(run, workdir)
    use_compilation_cache(workdir)
    save_tokenizer(run, workdir)

    clock = Clock()
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
    state, frozen, progress = start_or_resume(run, workdir, checkpoints, clock)
    clock = Clock(progress.seconds or clock.total)
    metrics = Metrics(workdir, progress.step if checkpoints.latest() is not None else -1)
    train_step = make_train_step(run.policy, run.optimizer, run.schedule, run.objective, run.mesh, teacher=run.teacher)
    begin -= progress.wall_seconds

    def due(every: int) -> bool:
        ends = progress.step == config.steps or progress.stopped is not None
        return ends or (every > 0 and progress.step % every == 0)

    def save(accuracy: float | None = None) -> None:
        with clock.phase("checkpoint"):
            metrics.sync()
            progress.seconds, progress.wall_seconds = clock.total, time.perf_counter() - begin
            progress.good = progress.step if monitor.healthy(progress.tracks, config.monitor) else progress.good
            checkpoints.save(progress.step, state, dataclasses.asdict(progress), accuracy, progress.good)

    with Interrupt() as interrupt, jax.transfer_guard("disallow"):
        if checkpoints.latest() is None:
            metrics.write("eval", 0, evaluation(run, state.params, clock, workdir, 0, lambda every: True))
            if monitor.rolls_back(config.monitor):
                save()

        shown = bar(total=config.steps, initial=progress.step, unit="step")
        while progress.step < config.steps and not interrupt.requested and not progress.stopped:
            clock.lap()
            state, made, learned = training_step(run, train_step, state, frozen, progress, clock)
            state, progress, seen = watch(config.monitor, state, progress, checkpoints, made, learned)
            if progress.step == 1 or due(config.report.rollouts_every):
                with clock.phase("report"):
                    path = workdir / "rollouts" / f"step_{progress.step:05d}.parquet"
                    write_rollouts(path, progress.step, config.rollout.group, run.tokenizer, made)
            metrics.write_timeline(progress.step, clock.timeline(config.rollout.slots))
            row = summary(made, learned, clock.lap()) | seen
            metrics.write("train", progress.step, row)
            shown.update()
            say(one_line(progress.step, config.steps, row))

            accuracy = None
            if due(config.evaluation.every):
                values = evaluation(run, state.params, clock, workdir, progress.step, due)
                metrics.write("eval", progress.step, values)
                accuracy = values.get("eval/validation/sampled", values["eval/sampled"])
            interrupt.poll()
            progress.skipped = progress.skipped + 1 if row["optimizer/skipped"] else 0
            lost = progress.skipped >= config.optimizer.max_skipped
            if due(config.checkpoint.every) or interrupt.requested or lost or progress.step in progress.rollbacks:
                save(accuracy)
            if lost:
                checkpoints.close()
                raise FloatingPointError(
                    f"step {progress.step}: {progress.skipped} updates in a row had gradients that are not finite "
                    f"(optimizer.max_skipped = {config.optimizer.max_skipped}); parameters are those before them"
                )
        shown.close()
    with clock.phase("checkpoint"):
        checkpoints.close()
    metrics.close()
    if interrupt.requested:
        note(f"{interrupt.requested}: saved at step {progress.step}; the same command continues from there")
    if progress.stopped:
        note("stopped by the collapse monitor at step {step}: {signal} {value:.3g}".format(**progress.stopped))
    more = dict(last=config.evaluation.last, stopped=progress.stopped, rollbacks=progress.rollbacks)
    return write_results(workdir, progress.step, clock.total, time.perf_counter() - begin, **more)


def training_step(run: Run, train_step, state: TrainState, frozen: Frozen, progress: Progress, clock: Clock):
    """One step of the algorithm. Advances `progress`; returns the state, what was made on the way, and the updates' metrics."""
    config, step = run.config, progress.step
    weights = run.sampling_weights(state.params)
    with clock.phase("sample"):
        drawn = draw(run, weights, step, progress.position, clock)
        rollouts, progress.position = drawn.rollouts, drawn.position
    with clock.phase("credit"):
        reward = rollouts.reward + run.penalty(rollouts)
        advantage = advantages(reward, config.rollout.group, normalize=config.credit.normalize)
        needed = run.needs_context(advantage, rollouts, step)
    with clock.phase("reflect"):
        writers = run.writers(weights, frozen.critic, step, clock)
        writers = dataclasses.replace(writers, policy=drawn.first(writers.policy))
        contexts = run.make_contexts(rollouts, needed, writers)
        del weights, writers  # the learner needs their room
    with clock.phase("score"):
        teacher = (run.teacher.model, run.teacher.params(state)) if run.rule.reads_gap else None
        own = rescore(run, state.params, rollouts) if config.loss.old_logp == "trainer" else None
        ref = rescore(run, frozen.reference, rollouts) if frozen.reference is not None else None
        scores = score(run.policy, state.params, teacher, rollouts, contexts, own, **run.scoring)
    with clock.phase("credit"):
        noise = rng.host(config.seed, "credit", step).random(len(advantage), np.float32)
        args = dict(config.credit.args)
        credit = assign(run.rule, args, step, advantage, rollouts, scores, noise=noise, memory=progress.memory)
        progress.memory = list(credit.memory)
    with clock.phase("learn"):
        learned = []
        shown = contexts if run.objective.distil else None
        for batch in make_batches(rollouts, credit, own and own[0], ref and ref[0], shown, **run.batching):
            state, values = train_step(state, batch)
            learned.append(values)
        state, learned = run.teacher.follow(state, step + 1), jax.device_get(learned)
    progress.step = step + 1
    return state, Made(rollouts, contexts, scores, credit, drawn.metrics), learned


def watch(
    config: ConfigDict,
    state: TrainState,
    progress: Progress,
    checkpoints: Checkpoints,
    made: Made,
    learned: list[dict],
) -> tuple[TrainState, Progress, dict[str, float | None]]:
    """Shows a step to the collapse monitor and does what it asks for: nothing, a line, a rollback, or the end of the run.

    A rollback brings back the last good checkpoint, with all that the host remembered then. The step and the position in
    the data go on, so neither a prompt nor its noise comes a second time.

    Returns:
      state and progress to go on with, and the monitor's metrics.
    """
    measured = monitor.measure(made, learned, config)
    progress.tracks, seen, alarms = monitor.observe(progress.tracks, measured, config)
    for alarm in alarms:
        say(alarm.line(progress.step))
    action = alarms[0].action if alarms else "off"
    if action == "stop" or (action == "rollback" and len(progress.rollbacks) == config.rollbacks):
        progress.stopped = alarms[0].record(progress.step)
    elif action == "rollback":
        say(f"step {progress.step}: back to the parameters of step {progress.good}")
        state, earlier = checkpoints.replace(state, progress.good)
        now = dict(step=progress.step, position=progress.position, rollbacks=[*progress.rollbacks, progress.step])
        progress = Progress(**earlier | now)
    return state, progress, seen


def describe(run: Run) -> None:
    """What runs where, and which parameters could not be split."""
    shape = ", ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    note(f"{run.config.credit.rule} on {run.config.task.name}, {run.policy.architecture.parameters():,} parameters")
    note(f"{jax.device_count()} x {jax.devices()[0].device_kind}, mesh {shape}")
    for line in meshes.replicated_by_size(run.policy.abstract_params(), run.mesh):
        note(f"  {line}")


@processes.only_first
def describe_data(run: Run, workdir: Path) -> None:
    """What a task's rows are like, kept in `data.json`; a resumed run has it already."""
    path, draft = workdir / "data.json", workdir / "data.tmp"
    found = {} if path.exists() else data_report.report(run.task, run.encode, run.config.rollout.prompt_length)
    for line in data_report.lines(found):
        note(line)
    if found:
        draft.write_text(json.dumps(found, indent=2) + "\n")
        draft.replace(path)


@processes.only_first
def save_tokenizer(run: Run, workdir: Path) -> None:
    """Keeps the tokenizer beside the checkpoints; a resumed run reads it from there."""
    folder, draft = workdir / "tokenizer", workdir / "tokenizer.tmp"
    if not folder.exists():
        run.tokenizer.save_pretrained(draft)
        draft.rename(folder)


# ---------------------------------------------------------------- phases that need a few lines of their own


def rescore(run: Run, params: Params, rollouts: Rollouts) -> tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]]:
    """Log-probabilities and entropies of all responses under parameters of the policy."""
    rows = (rollouts.prompt, rollouts.prompt_length, rollouts.response, rollouts.mask)
    return score_rows(run.policy, params, *rows, **run.scoring)


def evaluation(
    run: Run, params: Params, clock: Clock, workdir: Path, step: int, due: Callable[[int], bool]
) -> dict[str, float]:
    """Metrics of the benchmarks that are due; their answers go to the workdir. The same noise at every step."""
    values = {}
    with clock.phase("evaluate"):
        weights = run.sampling_weights(params)
        for benchmark in run.evaluator.benchmarks:
            if due(benchmark.every):
                found = run.evaluator(benchmark, weights)
                path = workdir / "evaluations" / f"step_{step:05d}" / f"{benchmark.name}.parquet"
                write_answers(path, benchmark, found.answers)
                values |= {f"eval/{benchmark.prefix}{name}": value for name, value in found.metrics.items()}
    return processes.agree(values)
