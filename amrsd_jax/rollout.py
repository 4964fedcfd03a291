"""Samples and verifies responses, decides which rows need a teacher, and makes the contexts of those rows.

A group is verified as soon as its last response is finished, while the sampler goes on with other groups. Where the policy's
reflections are the first choice of context, they are requested at once and sampled in the slots of finished rollouts.
A token's randomness depends on its row and position alone, so the slot and the time of a row never change its tokens.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from amrsd_jax import credit, interrupt, rng
from amrsd_jax.config import RolloutConfig
from amrsd_jax.experiment import Experiment, reflects_early
from amrsd_jax.records import (
    Completion,
    Contexts,
    Prompts,
    Request,
    Rollouts,
    Signals,
    concatenate_rollouts,
    select_rollouts,
)
from amrsd_jax.reflection.contexts import make_contexts
from amrsd_jax.reflection.reflections import Reflections
from amrsd_jax.reflection.sources import Generators
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.sampling import RequestQueue, SamplerParams, completed_batches
from amrsd_jax.tasks.stream import next_prompts
from amrsd_jax.tasks.verify import verify

RESPONSES, REFLECTIONS = range(2)  # streams of requests, each with its own key
STREAMS = ("rollout", "reflection")  # their names in `rng.key`
TIMELINE = ("rollouts", "reflections")  # their names in the timeline


@dataclasses.dataclass(frozen=True)
class Generated:
    """The rollouts of one step and the teacher's contexts.

    Attributes:
      rollouts: N verified responses.
      advantage: sequence-level advantage [N].
      contexts: of the rows that need a teacher.
      position: index of the next step's first problem.
      data_metrics: how prompts were selected, and the response tokens that were sampled, those of groups left out too.
    """

    rollouts: Rollouts
    advantage: Float[np.ndarray, " N"]
    contexts: Contexts
    position: int
    data_metrics: dict[str, float]


def generate(
    experiment: Experiment, params: SamplerParams, critic: SamplerParams | None, step: int, position: int, clock: Clock
) -> Generated:
    """Samples and verifies one batch of groups in the order of their prompts, and makes the contexts of the rows that need one.

    With `rollout.rounds` > 1, groups of equal rewards are replaced by further prompts (DAPO's dynamic sampling) until the
    batch is full or the rounds are used up; remaining places are filled with groups of equal rewards.

    Args:
      params, critic: parameters of the policy, and of the frozen critic where a source needs one.
      step, position: training steps done, and index of the next problem.
      clock: records the phases `sample` and `reflect`, and when each row had a slot.

    Raises:
      Interrupted: a signal was received while responses were sampled.
    """
    config = experiment.config
    sampler = clock.watched(TIMELINE[REFLECTIONS], experiment.sampler(params, "reflection", step))
    reflections = Reflections(experiment.context_settings, sampler)
    with clock.phase("sample"):
        groups, equal, sampled, too_long = [], [], 0, 0
        for _ in range(config.rollout.rounds):
            prompts, position, skipped = next_prompts(
                experiment.task, "train", position, config.rollout.prompts,
                encode=experiment.prompt_ids, longest=config.rollout.prompt_length,
            )  # fmt: skip
            first_row = sampled * config.rollout.group
            groups += sample_groups(experiment, params, prompts, step, first_row, reflections, clock)
            equal = [config.rollout.rounds > 1 and np.ptp(group.reward) == 0 for group in groups]
            sampled, too_long = sampled + config.rollout.prompts, too_long + skipped
            if len(groups) - sum(equal) >= config.rollout.prompts:
                break
        tokens = sum(int(group.mask.sum()) for group in groups)
        chosen = sorted(np.argsort(equal, kind="stable")[: config.rollout.prompts])  # in the order of their prompts
        rollouts = concatenate_rollouts([groups[i] for i in chosen])
        if config.reward.permute:
            rollouts = permute_rewards(rollouts, rng.host(config.seed, "permute", step))
        advantage, needs_teacher = decide(experiment, rollouts, step)
    with clock.phase("reflect"):
        critic_sampler = None
        if critic is not None:
            critic_sampler = clock.watched(TIMELINE[REFLECTIONS], experiment.sampler(critic, "critic", step))
        contexts = make_contexts(
            config.credit.context, experiment.rule.negatives, config.credit.negatives,
            experiment.context_settings, rollouts, needs_teacher, Generators(reflections, critic_sampler),
        )  # fmt: skip
    data_metrics = {"data/prompts_drawn": sampled, "data/prompts_too_long": too_long, "tokens/sampled": tokens}
    return Generated(rollouts, advantage, contexts, position, data_metrics)


def decide(
    experiment: Experiment, rollouts: Rollouts, step: int
) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Returns the advantage of every row of whole groups, and which rows need a teacher.

    These are the rows that the rule declares and the loss counts, or all rows if `credit.exact_savings` is off.
    """
    config = experiment.config
    reward = rollouts.reward
    if config.reward.overlong_buffer:
        limits = dict(longest=config.rollout.response_length, buffer=config.reward.overlong_buffer)
        reward = reward + credit.overlong_penalty(rollouts.mask.sum(axis=1), **limits)
    section = config.credit
    scale = dict(normalize=section.normalize, sample_std=section.sample_std, baseline=section.baseline)
    advantage = credit.group_advantage(reward, config.rollout.group, **scale)
    if config.credit.context == "none":
        return advantage, np.zeros(len(advantage), bool)
    if not config.credit.exact_savings:
        return advantage, np.ones(len(advantage), bool)
    group = config.rollout.group
    right = credit.group_right(rollouts.reward, group)
    mask = rollouts.trained(config.loss.mask_truncated)
    signals = Signals(step, advantage, rollouts.reward, mask, group, right)
    needed = experiment.rule.needs_teacher(signals, credit.Hyper(**config.credit.args))
    return advantage, needed & mask.any(axis=1)


def sample_groups(
    experiment: Experiment,
    params: SamplerParams,
    prompts: Prompts,
    step: int,
    first_row: int,
    reflections: Reflections,
    clock: Clock,
) -> list[Rollouts]:
    """Samples and verifies G responses to every prompt, in the order of the prompts.

    Args:
      first_row: number of the first response in the step, which keys its randomness.
      reflections: makes requests as groups are verified, and collects the completions, where `reflects_early` is true.

    Raises:
      Interrupted: a signal was received.
    """
    config, sampler = experiment.config.rollout, experiment.samplers["rollout"]
    requests = RequestQueue(response_requests(config, prompts, first_row))
    keys = jnp.stack([rng.key(experiment.config.seed, stream, step) for stream in STREAMS])
    unfinished, groups = defaultdict(list), {}
    for finished in completed_batches(experiment.policy, sampler, params, requests, keys):
        rows = []  # first rows of the groups that are complete now
        for completion in finished:
            clock.row(TIMELINE[completion.request.stream], completion)
            if completion.request.stream == REFLECTIONS:
                reflections.add(completion)
                continue
            row = completion.request.row
            unfinished[row].append(completion)
            rows += [row] if len(unfinished[row]) == config.group else []
        if rows:
            with clock.beside("verify"):
                verified = verify_groups(experiment, [unfinished.pop(row) for row in rows])
            groups |= dict(zip(rows, verified, strict=True))
            if reflects_early(experiment.config):
                with clock.beside("reflect"):
                    for row in rows:
                        for request in early_requests(experiment, groups[row], step, row, reflections):
                            requests.add(request)
        interrupt.check()  # after the verification, which other processes may be waiting for
    return [groups[row] for row in sorted(groups)]


def response_requests(config: RolloutConfig, prompts: Prompts, first_row: int) -> Iterator[Request]:
    """Yields the requests for G responses to every prompt; the first response has the row `first_row`."""
    for i, (problem, tokens) in enumerate(zip(prompts.problems, prompts.tokens, strict=True)):
        yield Request(
            tokens, row=first_row + i * config.group, count=config.group, stream=RESPONSES,
            temperature=config.temperature, top_k=config.top_k, top_p=config.top_p, tag=problem,
        )  # fmt: skip


def verify_groups(experiment: Experiment, groups: list[list[Completion]]) -> list[Rollouts]:
    """Verifies groups of completions together; returns each with its rows in order."""
    config = experiment.config.rollout
    completions = [completion for group in groups for completion in sorted(group, key=lambda c: c.index)]
    rollouts = verify(
        experiment.task, experiment.tokenizer, completions,
        prompt_length=config.prompt_length, response_length=config.response_length, stop=config.stop,
    )  # fmt: skip
    size = config.group
    return [select_rollouts(rollouts, slice(start, start + size)) for start in range(0, len(completions), size)]


def early_requests(
    experiment: Experiment, group: Rollouts, step: int, first_row: int, reflections: Reflections
) -> Iterator[Request]:
    """Yields requests for the reflections on a group that fit into the sampler of the rollouts."""
    sampler, limit = experiment.samplers["rollout"], experiment.samplers["reflection"].new_tokens
    _, needs_teacher = decide(experiment, group, step)
    chosen = np.flatnonzero(needs_teacher).tolist()
    rows = range(first_row, first_row + len(needs_teacher))
    for request in reflections.requests(group, chosen, rows):
        if limit <= sampler.new_tokens and len(request.prompt) + limit <= sampler.length:
            yield dataclasses.replace(request, stream=REFLECTIONS, new_tokens=limit)


def permute_rewards(rollouts: Rollouts, generator: np.random.Generator) -> Rollouts:
    """Returns rollouts with rewards, verdicts and further scores permuted within the batch, for a control run.

    Ranges of characters and tokens (`first_error`, spans) say something about their own response, and stay with it.
    """
    order = generator.permutation(len(rollouts.text))
    verdicts = tuple(
        dataclasses.replace(rollouts.verdicts[i], spans=own.spans)
        for i, own in zip(order, rollouts.verdicts, strict=True)
    )
    extras = {name: values if values.ndim > 1 else values[order] for name, values in rollouts.extras.items()}
    return dataclasses.replace(rollouts, verdicts=verdicts, reward=rollouts.reward[order], extras=extras)
