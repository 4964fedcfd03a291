"""Makes the benchmarked cases: sampling, scoring and learning, each also on a long tail of lengths.

Weights and tokens are random, on one device.
"""

from collections.abc import Sequence
from types import ModuleType

import jax
import numpy as np
import optax

from amrsd_jax import rng
from amrsd_jax.config import Config, LearningConfig, OptimizerConfig, ScoringConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import micro_batches
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import init_params, init_state
from amrsd_jax.learning.step import Objective, make_train_step
from amrsd_jax.policy import Architecture, Params, Policy
from amrsd_jax.records import Batch
from amrsd_jax.sampling import Request, SamplerConfig, SamplerParams, complete, transitions
from amrsd_jax.scoring.score import Scorer, score_program
from benchmarks import floors
from benchmarks.lengths import LogNormalLengths, log_normal
from benchmarks.measure import Arm, Case

DEFAULTS = Config()
TAIL = 8  # longest response over the median one
SPREAD = 1.0  # standard deviation of the logarithm of a long-tailed length


def sampling(policy: Policy, peer: ModuleType | None, rows: int, prompt: int, new: int) -> Case:
    """Samples `new` tokens for each of `rows` prompts of one length, all at once."""
    c = policy.architecture
    params = _params(policy)
    requests = _requests(c, rows, prompt)
    config = _config(rows, prompt, new, admit=rows)
    arms = [_sampler("amrsd_jax", policy, config, params, [requests])]
    if peer:
        arms.append(peer.sampling(c, params.params, requests, new))

    sizes = dict(rows=rows, prompt=prompt, new=new)
    return Case("sampling", "fixed length", sizes, lambda _: floors.sampling(c, **sizes), tuple(arms))


def long_tail(policy: Policy, peer: ModuleType | None, rows: int, slots: int, prompt: int, new: int) -> Case:
    """Samples responses of log-normal lengths for more prompts than slots: slots are refilled, or each batch runs to its end."""
    del peer  # it does not refill slots
    c = policy.architecture
    policy = LogNormalLengths(c, prompt=prompt, median=new // TAIL, spread=SPREAD, longest=new)
    params = _params(policy)
    requests = _requests(c, rows, prompt)
    config = _config(slots, prompt, new, admit=max(1, slots // 4), stop_tokens=(policy.stop,))
    batches = [requests[i : i + slots] for i in range(0, rows, slots)]
    arms = (
        _sampler("continuous", policy, config, params, [requests]),
        _sampler("lockstep", policy, config, params, batches),
    )

    sizes = dict(rows=rows, slots=slots, prompt=prompt, new=new, median=policy.median, spread=policy.spread)
    return Case("sampling", "long tail", sizes, lambda tokens: floors.long_tail(c, rows, slots, prompt, tokens), arms)


def scoring(policy: Policy, peer: ModuleType | None, rows: int, length: int, together: int) -> Case:
    """Scores rows of one prompt token and length - 1 response tokens, `together` rows at a time."""
    c = policy.architecture
    given = random_batch(c, 1, np.full(rows, length - 1), length - 1)
    params = init_params(policy, _key(), _mesh())
    arms = [_scorer("amrsd_jax", policy, params, given, together)]
    if peer:
        arms.append(_peer_scorer(peer, policy, params, given, together))
    sizes = dict(rows=rows, length=length, together=together)
    return Case("scoring", "forward", sizes, lambda _: floors.scoring(c, 1, [length - 1] * rows), tuple(arms))


def scoring_tail(policy: Policy, peer: ModuleType | None, rows: int, prompt: int, longest: int, together: int) -> Case:
    """Scores responses of log-normal lengths: rows padded to a width that their length needs, or all to the longest."""
    c = policy.architecture
    tokens = log_normal(rows, longest // TAIL, SPREAD, longest)
    given = random_batch(c, prompt, tokens, longest)
    params = init_params(policy, _key(), _mesh())
    arms = [_scorer(name, policy, params, given, together) for name in ("amrsd_jax", "padded")]
    if peer:
        arms.append(_peer_scorer(peer, policy, params, given, together))
    sizes = dict(rows=rows, prompt=prompt, longest=longest, together=together)
    return Case("scoring", "long tail", sizes, lambda _: floors.scoring(c, prompt, tokens), tuple(arms))


def learning(policy: Policy, peer: ModuleType | None, rows: int, length: int) -> Case:
    """Makes one clipped policy-gradient update with float32 master weights, AdamW and gradient clipping."""
    c = policy.architecture
    given = random_batch(c, 1, np.full(rows, length - 1), length - 1)
    arms = [_learner("amrsd_jax", policy, given, 1)]
    if peer:
        arms.append(_peer_learner(peer, policy, given, 1))
    sizes = dict(rows=rows, length=length)
    return Case("learning", "update", sizes, lambda _: floors.learning(c, 1, [length - 1] * rows), tuple(arms))


def learning_tail(policy: Policy, peer: ModuleType | None, rows: int, prompt: int, longest: int, parts: int) -> Case:
    """Makes an update on responses of log-normal lengths in micro-batches: sorted by length, or all padded to the longest."""
    c = policy.architecture
    tokens = log_normal(rows, longest // TAIL, SPREAD, longest)
    given = random_batch(c, prompt, tokens, longest)
    arms = [_learner(name, policy, given, parts) for name in ("amrsd_jax", "padded")]
    if peer:
        arms.append(_peer_learner(peer, policy, given, parts))
    sizes = dict(rows=rows, prompt=prompt, longest=longest, micro_batches=parts)
    return Case("learning", "long tail", sizes, lambda _: floors.learning(c, prompt, tokens), tuple(arms))


def learning_groups(
    policy: Policy, peer: ModuleType | None, prompts: int, group: int, prompt: int, new: int, parts: int
) -> Case:
    """Makes an update on groups of responses to one prompt each, which is run once for every response, or once for a group."""
    del peer  # it runs a prompt for every response
    c = policy.architecture
    given = random_batch(c, prompt, np.full(prompts * group, new), new)
    given = given.replace(prompt=np.repeat(given.prompt[::group], group, axis=0))
    arms = [_learner("amrsd_jax", policy, given, parts), _learner("shared", policy, given, parts, share_prompts=True)]
    sizes = dict(prompts=prompts, group=group, prompt=prompt, new=new, micro_batches=parts)
    responses = [new] * (prompts * group)
    return Case("learning", "groups", sizes, lambda _: floors.learning(c, prompt, responses, group), tuple(arms))


# ---------------------------------------------------------------- arms


def _sampler(
    name: str, policy: Policy, config: SamplerConfig, params: SamplerParams, batches: Sequence[list[Request]]
) -> Arm:
    """Returns an arm that samples batches of requests one after the other."""

    def run() -> int:
        return sum(len(c.tokens) for requests in batches for c in complete(policy, config, params, requests, _key()))

    def programs():
        slots = transitions.empty_slots(policy, config)
        transitions.resize_cache(config, slots, config.length)
        return [transitions.decode.lower(policy, config, params.decoding, slots, np.int32(0)).compile()]

    return Arm(name, run, programs)


def _scorer(name: str, policy: Policy, params: Params, given: Batch, together: int) -> Arm:
    """Returns an arm that scores rows; the arm `padded` scores them all at full width."""
    tokens, given = _count(given), _padded(given) if name == "padded" else given
    arrays = (given.prompt, given.prompt_length, given.response, given.mask)
    scorer = Scorer(ScoringConfig(rows=together), temperature=1.0, sharding=meshes.rows(_mesh()))

    def run() -> int:
        scorer.score_rows(policy, params, *arrays)
        return tokens

    def programs():
        (widest, _), *_ = micro_batches(given, None, len(given.mask))
        part = (widest.prompt, widest.prompt_length, widest.response)
        part = [jax.ShapeDtypeStruct((together, *a.shape[1:]), a.dtype) for a in part]
        static = dict(temperature=1.0, chunk=scorer.config.chunk, width=widest.width)
        return [score_program.lower(policy, params, *part, **static).compile()]

    return Arm(name, run, programs)


def _peer_scorer(peer: ModuleType, policy: Policy, params: Params, given: Batch, together: int) -> Arm:
    params = _cast_params(policy, params)
    return peer.scoring(policy.architecture, params, given.prompt, given.response, together, _count(given))


def _learner(name: str, policy: Policy, given: Batch, parts: int, **learning) -> Arm:
    """Returns an arm that updates on rows in `parts` micro-batches; the arm `padded` computes them all at full width."""
    tokens, given = _count(given), _padded(given) if name == "padded" else given
    mesh, (schedule, optimizer) = _mesh(), _optimizer()
    objective = Objective(DEFAULTS.loss, distill=None, temperature=1.0, chunk=DEFAULTS.scoring.chunk)
    step = make_train_step(
        policy, optimizer, schedule, objective, LearningConfig(micro_batches=parts, **learning), mesh
    )
    state = init_state(policy, optimizer, init_params(policy, _key(), mesh), mesh)

    def run() -> int:
        nonlocal state  # donated
        state, _ = jax.block_until_ready(step(state, given))
        return tokens

    def programs():
        widest, *_ = step.device_rows(given)
        if parts == 1:
            return [step.single_update.lower(state, None, widest).compile()]
        return [step.accumulate.lower(state.params, state, None, widest).compile()]

    return Arm(name, run, programs)


def _peer_learner(peer: ModuleType, policy: Policy, given: Batch, parts: int) -> Arm:
    params = init_params(policy, _key(), _mesh())
    _, optimizer = _optimizer()
    return peer.learning(
        policy.architecture, params, given, optimizer, parts, DEFAULTS.loss.clip_low, tokens=_count(given)
    )


def _optimizer() -> tuple[optax.Schedule, optax.GradientTransformation]:
    config = OptimizerConfig(learning_rate=1e-6)
    schedule = make_schedule(config, total_updates=1)
    return schedule, make_optimizer(config, schedule)


def _config(slots: int, prompt: int, new: int, *, admit: int, stop_tokens: tuple[int, ...] = ()) -> SamplerConfig:
    return SamplerConfig(slots, 1, prompt, new, admit=admit, segment=DEFAULTS.rollout.segment, stop_tokens=stop_tokens)


_cast_params = jax.jit(Policy.cast_params, static_argnums=0)
_for_decoding = jax.jit(Policy.for_decoding, static_argnums=0)


def _params(policy: Policy) -> SamplerParams:
    params = _cast_params(policy, init_params(policy, _key(), _mesh()))
    return SamplerParams(params, _for_decoding(policy, params))


def _mesh() -> jax.sharding.Mesh:
    return meshes.make_mesh(1, 1, 1)


def _key() -> jax.Array:
    return rng.key(0, "benchmark")


def _tokens(c: Architecture, rows: int, length: int) -> np.ndarray:
    """Returns random ids; 0 and 1 are left out, for padding and stop tokens."""
    return rng.host(0, "benchmark").integers(2, c.vocab_size, (rows, length), np.int32)


def _requests(c: Architecture, rows: int, prompt: int) -> list[Request]:
    return [Request(tokens.tolist(), row=row) for row, tokens in enumerate(_tokens(c, rows, prompt))]


def random_batch(c: Architecture, prompt: int, sizes: np.ndarray, longest: int) -> Batch:
    """Returns rows of one prompt length, with advantages of both signs and the log-probabilities of a uniform policy.

    Args:
      sizes: response tokens of each row; the rest up to `longest` is padding, 0.
    """
    rows = len(sizes)
    tokens = _tokens(c, rows, prompt + longest)
    mask = (np.arange(longest) < sizes[:, None]).astype(np.float32)
    old = np.full_like(mask, -np.log(c.vocab_size))
    return Batch(
        prompt=tokens[:, :prompt], prompt_length=np.full(rows, prompt, np.int32),
        response=tokens[:, prompt:] * mask.astype(np.int32), mask=mask,
        sampler_logprobs=old, old_logprobs=old, reference_logprobs=np.zeros_like(old),
        token_advantage=rng.host(0, "benchmark", 1).standard_normal(mask.shape, np.float32),
    )  # fmt: skip


def _padded(given: Batch) -> Batch:
    """Returns the same rows with every response position counted, so that all rows have the full width."""
    return given.replace(mask=np.ones_like(given.mask))


def _count(given: Batch) -> int:
    """Counts the tokens of all rows, without padding."""
    return int(given.prompt_length.sum() + given.mask.sum())
