"""Lists the programs of a run, each with the shapes and shardings of its arguments; nothing is allocated."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import PyTree

from amrsd_jax import experiment
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_schedule
from amrsd_jax.learning.state import abstract_state, state_shardings
from amrsd_jax.learning.step import LossWeights, Objective, TrainStep, accumulates, make_train_step
from amrsd_jax.plan.sizes import Planned, policies_of
from amrsd_jax.policy import Policy, lora
from amrsd_jax.policy import cache as caches
from amrsd_jax.records import Batch, TrainState
from amrsd_jax.sampling import SamplerConfig, transitions
from amrsd_jax.scoring.score import score_program
from amrsd_jax.scoring.teachers import Blend


@dataclasses.dataclass(frozen=True)
class Program:
    """A program at the widest shapes that the run can give it.

    Attributes:
      name: as in `--programs`.
      phase: the phase of the plan in which it runs.
      policy: the model that it runs, or is made of.
      arguments: items of the plan that it is given; the rest of what is held is beside the program.
      results: items of the plan that it makes, or parts of them.
      lower: traces it for the mesh's devices.
    """

    name: str
    phase: str
    policy: Policy
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    lower: Callable[[], jax.stages.Lowered]


def programs(run: Planned) -> Iterator[Program]:
    """Yields the programs of a run in the order of a step."""
    weights, cache, state = "decoding weights", "keys and values", ("parameters", "optimiser", "teacher")
    own = partial(Program, policy=run.policy, results=())
    for part, lower in _decoding_weights(run).items():
        yield own(f"prepare.{part}", "prepare", arguments=("parameters",), results=(weights,), lower=lower)
    for stream, sampler in run.streams.items():
        policy, params, decoded = run.policy, "parameters", weights
        if stream == "critic":
            if not run.external:  # its programs are those of "reflection", for longer answers
                continue
            policy, params, decoded = run.external, "critic", f"critic's {weights}"
        admit = partial(own, phase="prefill", policy=policy, arguments=(params, cache))
        own_prompts, *early = run.prompts(stream)
        yield admit(f"{stream}.admit", lower=partial(_admit, run, policy, sampler, own_prompts, sampler.group))
        for longest in early:
            yield admit(f"{stream}.admit_reflections", lower=partial(_admit, run, policy, sampler, longest, 1))
        decode = partial(_decode, run, policy, sampler)
        yield own(f"{stream}.decode", "decode", policy=policy, arguments=(decoded, cache), lower=decode)
    yield own("score", "score", arguments=("parameters",), lower=partial(_score, run, run.policy))
    teacher = run.teacher.model
    if run.scores_gap and teacher != run.policy:
        blend = isinstance(teacher, Blend)
        policy, read = (run.policy, ("teacher", "parameters")) if blend else (teacher, ("teacher",))
        yield own("teacher.score", "score", policy=policy, arguments=read, lower=partial(_score, run, teacher))
    if not accumulates(run.config.loss, run.config.learning):
        yield own("single_update", "update", arguments=state, lower=lambda: _single_update(run))
        return
    yield own("zero_gradients", "update", arguments=(), lower=lambda: _zero_gradients(run))
    read = ("parameters", "teacher") if run.distils else ("parameters",)
    yield own("accumulate", "update", arguments=read, lower=lambda: _accumulate(run))
    yield own("apply_update", "update", arguments=state, lower=lambda: _apply_update(run))


# ---------------------------------------------------------------- shapes


def _array(run: Planned, *shape: int, dtype=np.int32, split: bool = False) -> jax.ShapeDtypeStruct:
    """Returns the shape of an array that every device holds, or of one whose rows are split."""
    where = meshes.rows(run.mesh) if split else meshes.replicated(run.mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _place(tree: PyTree, where: PyTree | NamedSharding) -> PyTree:
    """Returns shapes with shardings, a tree of them or one for all."""
    if isinstance(where, NamedSharding):
        where = jax.tree.map(lambda _: where, tree)
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, where)


def _params(run: Planned, policy: Policy) -> PyTree:
    params = policy.abstract_params()
    return _place(params, meshes.shardings(params, run.mesh))


# ---------------------------------------------------------------- sampling


def slots(run: Planned, policy: Policy, sampler: SamplerConfig) -> transitions.Slots:
    """Returns the shapes of the state of a policy's sampler whose cache is as wide as it can be."""

    def widest():
        state = transitions.empty_slots(policy, sampler)
        transitions.resize_cache(sampler, state, sampler.length)
        return state

    state, rows = jax.eval_shape(widest), meshes.rows(run.mesh)
    others = _place(state.replace(cache=[]), rows)
    return others.replace(cache=_place(state.cache, caches.shardings(state.cache, rows)))


def _decoding_weights(run: Planned) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """Returns the programs that make the weights for decoding, by what they make: a layer, or a part beside the layers."""
    layer, cast = experiment.decoding_programs(run.policy, run.mesh)
    params = _params(run, run.policy)

    def part(name):
        return lambda: cast[name].lower({name: params[name]})

    return {"layer": lambda: layer.lower(params["layers"], _array(run)), **{name: part(name) for name in cast}}


def _admit(run: Planned, policy: Policy, sampler: SamplerConfig, longest: int, group: int):
    a, p = sampler.prompts_per_admission(longest), sampler.prompt_width(longest)
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")).dtype

    def array(*shape, dtype=np.int32):
        return _array(run, *shape, dtype=dtype)

    return transitions.admit.lower(
        policy, sampler, _params(run, policy), slots(run, policy, sampler), array(1, dtype=key), array(a, p), array(a), array(a),
        array(a), array(a, group), array(a, group, dtype=np.uint32), array(a, group, dtype=np.float32), array(a),
        array(a, dtype=np.float32),
    )  # fmt: skip


def _decode(run: Planned, policy: Policy, sampler: SamplerConfig):
    weights = jax.eval_shape(policy.for_decoding, policy.abstract_params())
    weights = _place(weights, experiment.decoding_shardings(policy, run.mesh))
    return transitions.decode.lower(policy, sampler, weights, slots(run, policy, sampler), _array(run))


# ---------------------------------------------------------------- scoring and learning


def _score(run: Planned, model: Policy | Blend):
    config, n = run.config, run.config.scoring.rows
    prompt = max(config.rollout.prompt_length, config.reflection.context_length)
    rows = (
        _array(run, n, prompt, split=True),
        _array(run, n, split=True),
        _array(run, n, run.response_length, split=True),
    )
    static = dict(
        temperature=config.rollout.temperature, chunk=config.scoring.chunk, width=prompt + run.response_length
    )
    params = tuple(_params(run, policy) for policy in policies_of(model))
    return score_program.lower(model, params if isinstance(model, Blend) else params[0], *rows, **static)


def _step(run: Planned) -> tuple[TrainStep, TrainState, PyTree]:
    """Returns the train step, and the shapes of its state and of the frozen parameters."""
    config = run.config
    objective = Objective(
        config.loss, experiment.rule_divergence(config), config.rollout.temperature, config.scoring.chunk
    )
    schedule = make_schedule(config.optimizer, config.updates)
    step = make_train_step(
        run.policy, run.optimizer, schedule, objective, config.learning, run.mesh, teacher=run.teacher
    )
    state = abstract_state(run.policy, run.optimizer, teacher=run.teacher.stored)
    state = _place(state, state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.teacher.stored))
    return step, state, lora.split(_params(run, run.policy))[0]


def _rows(run: Planned) -> tuple[Batch, LossWeights]:
    """Returns the shapes of the widest micro-batch and of its weights."""
    config, m, t = run.config, run.micro_batch, run.response_length
    prompt, context = config.rollout.prompt_length, config.reflection.context_length

    def array(*shape, dtype=np.float32):
        return _array(run, *shape, dtype=dtype, split=True)

    ratio_is_1 = config.loss.old_logprobs == "update" and config.learning.minibatches == 1
    batch = Batch(
        prompt=array(m, prompt, dtype=np.int32), prompt_length=array(m, dtype=np.int32), response=array(m, t, dtype=np.int32),
        mask=array(m, t), sampler_logprobs=array(m, t), old_logprobs=None if ratio_is_1 else array(m, t),
        reference_logprobs=array(m, t), token_advantage=array(m, t), width=prompt + t,
    )  # fmt: skip
    if u := run.shared_prompts:
        batch = batch.replace(
            prompt=array(u, prompt, dtype=np.int32), prompt_length=array(u, dtype=np.int32),
            prompt_index=array(m, dtype=np.int32),
        )  # fmt: skip
    if run.distils:
        batch = batch.replace(
            context=array(m, context, dtype=np.int32), context_length=array(m, dtype=np.int32),
            distilled=array(m), context_width=context + t,
        )  # fmt: skip
    return batch, LossWeights(array(m, t), array(m, t) if run.distils else None)


def _single_update(run: Planned):
    step, state, frozen = _step(run)
    return step.single_update.lower(state, frozen, _rows(run))


def _zero_gradients(run: Planned):
    step, state, _ = _step(run)
    return step.zero_gradients.lower(state.params)


def _accumulate(run: Planned):
    step, state, frozen = _step(run)
    return step.accumulate.lower(state.params, state, frozen, _rows(run))


def _apply_update(run: Planned):
    step, state, frozen = _step(run)
    metrics = jax.eval_shape(step.accumulate, state.params, state, frozen, _rows(run))[1]
    metrics = _place(metrics, meshes.replicated(run.mesh))
    return step.apply_update.lower(state, state.params, metrics)
