"""Draw the rollouts of a step: prompts in, verified responses out, and on the way what the policy says to them already.

A group is verified as soon as its last response is there, and while the sampler goes on with others. Where the method lets the
policy reflect, it is asked at once too: reflections then run in the slots that finished rollouts leave, instead of after
the longest. When which row runs never changes its tokens, so a step is the same either way.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

from amrsd_jax import rng
from amrsd_jax.build import Run
from amrsd_jax.credit.assign import advantages
from amrsd_jax.records import Prompts, Rollouts
from amrsd_jax.reflection.contexts import Sampler
from amrsd_jax.reflection.sources import asks
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.sampling import Completion, Queue, Request, Weights, harvests
from amrsd_jax.tasks.stream import take
from amrsd_jax.tasks.verify import verify

ANSWERS, REFLECTIONS = range(2)  # streams of requests, each with the noise that it would have alone
NAMES = ("rollouts", "reflections")  # of their rows in the timeline


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Rollouts of one step.

    Attributes:
      rollouts: a batch of groups.
      position: in the data, of the next step's first prompt.
      reflections: of rows that were asked already.
      metrics: how the prompts were come by.
    """

    rollouts: Rollouts
    position: int
    reflections: list[Completion]
    metrics: dict[str, float]

    def first(self, sampler: Sampler) -> Sampler:
        """A sampler of reflections that hands out those that are there, and samples what else it is asked for."""
        made = {(c.request.row, tuple(c.request.prompt)): c for c in self.reflections}

        def sample(requests: Iterable[Request]) -> Iterator[Completion]:
            missing = []
            for request in requests:
                found = made.get((request.row, tuple(request.prompt)))
                if found is None:
                    missing.append(request)
                else:
                    yield dataclasses.replace(found, request=request)
            yield from sampler(missing)

        return sample


def draw(run: Run, weights: Weights, step: int, position: int, clock: Clock) -> Drawn:
    """Samples and verifies one batch of groups, prompts in their order.

    With `rollout.rounds` > 1, groups of equal rewards are replaced by further prompts (DAPO's dynamic sampling), until
    the batch is full or the rounds are used up; then it is filled with what there is. The clock is told when rows had
    their slots, and what the host did meanwhile.
    """
    config, group = run.config.rollout, run.config.rollout.group
    kept, spare, skipped, drawn, reflections = [], [], 0, 0, []
    while len(kept) < config.prompts and drawn < config.rounds * config.prompts:
        prompts, position, passed = take(
            run.task, "train", position, config.prompts, encode=run.encode, longest=config.prompt_length
        )
        rollouts, reflections = answer(run, weights, step, prompts, clock, first_row=drawn * group)
        skipped, drawn = skipped + passed, drawn + config.prompts
        for i in range(config.prompts):
            rows = range(i * group, (i + 1) * group)
            mixed = len({rollouts.reward[row] for row in rows}) > 1
            (kept if mixed or config.rounds == 1 else spare).append((rollouts, rows))
    rollouts = gather((kept + spare)[: config.prompts])
    if run.config.reward.permute:
        order = rng.host(run.config.seed, "permute", step).permutation(len(rollouts.text))
        verdicts = tuple(rollouts.verdicts[i] for i in order)
        rollouts = dataclasses.replace(rollouts, verdicts=verdicts, reward=rollouts.reward[order])
    return Drawn(rollouts, position, reflections, {"data/prompts_drawn": drawn, "data/prompts_too_long": skipped})


def answer(
    run: Run, weights: Weights, step: int, prompts: Prompts, clock: Clock, first_row: int
) -> tuple[Rollouts, list[Completion]]:
    """G verified responses to every prompt, group by group; and reflections on them, where these can be asked for so early."""
    config = run.config.rollout
    queue = Queue(
        Request(tokens, row=first_row + i * config.group, count=config.group, stream=ANSWERS,
                temperature=config.temperature, top_k=config.top_k, top_p=config.top_p, tag=problem)
        for i, (problem, tokens) in enumerate(zip(prompts.problems, prompts.tokens, strict=True))
    )  # fmt: skip
    keys = jnp.stack([rng.key(run.config.seed, stream, step) for stream in ("rollout", "reflection")])
    groups, verified, reflections = defaultdict(list), {}, []
    for finished in harvests(run.policy, run.layouts["rollout"], weights, queue, keys):
        whole = []
        for completion in finished:
            clock.row(NAMES[completion.request.stream], completion)
            if completion.request.stream == REFLECTIONS:
                reflections.append(completion)
                continue
            group = groups[completion.request.row]
            group.append(completion)
            whole += [completion.request.row] if len(group) == config.group else []
        if whole:
            rows = [c for row in whole for c in sorted(groups.pop(row), key=lambda c: c.index)]
            lengths = dict(prompt_length=config.prompt_length, response_length=config.response_length)
            with clock.beside("verify"):
                rollouts = verify(run.task, run.tokenizer, rows, **lengths)
            verified |= {
                row: (rollouts, range(i * config.group, (i + 1) * config.group)) for i, row in enumerate(whole)
            }
            if run.reflects_early:
                with clock.beside("reflect"):
                    for request in reflect(run, rollouts, whole, step):
                        queue.add(request)
    return gather([verified[row] for row in sorted(verified)]), reflections


def reflect(run: Run, rollouts: Rollouts, first_rows: list[int], step: int) -> Iterator[Request]:
    """Asks for the reflections on groups whose first rows in the batch are given, as far as the slots have room for them."""
    group, layout, limit = run.config.rollout.group, run.layouts["rollout"], run.layouts["reflection"].new_tokens
    advantage = advantages(rollouts.reward + run.penalty(rollouts), group, normalize=run.config.credit.normalize)
    needed = run.needs_context(advantage, rollouts, step)
    groups = np.arange(len(needed)) // group
    for i, first in enumerate(first_rows):
        for request in asks(run.make_contexts, rollouts, needed & (groups == i)):
            if limit > layout.new_tokens or len(request.prompt) + limit > layout.length:
                break  # its siblings are about as long; prompts that find no room now are made again later
            row = first + request.row - i * group
            yield dataclasses.replace(request, row=row, stream=REFLECTIONS, new_tokens=limit)


def gather(groups: list[tuple[Rollouts, range]]) -> Rollouts:
    """One record from groups of rows of several."""

    def column(name):
        picked = [getattr(rollouts, name)[row] for rollouts, rows in groups for row in rows]
        return np.stack(picked) if isinstance(getattr(groups[0][0], name), np.ndarray) else tuple(picked)

    return Rollouts(**{field.name: column(field.name) for field in dataclasses.fields(Rollouts)})
