"""What is measured: sampling, sampling with a long tail, scoring, learning. Random weights and tokens, one device."""

from collections.abc import Sequence
from types import ModuleType

import jax
import numpy as np

from amrsd_jax import config, rng
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.step import Objective, init_params, init_state, make_train_step
from amrsd_jax.policy import Architecture, Params, Policy
from amrsd_jax.records import Batch
from amrsd_jax.sampling import Layout, Request, complete, engine
from amrsd_jax.scoring import score
from benchmarks import floors
from benchmarks.lengths import LogNormalLengths
from benchmarks.measure import Arm, Case

DEFAULTS = config.base()
TAIL = 8  # longest response over the median one
SPREAD = 1.0  # standard deviation of the logarithm of a long-tailed length


def sampling(policy: Policy, peer: ModuleType | None, rows: int, prompt: int, new: int) -> Case:
    """Prompts of one length, a slot for each, `new` tokens from every one."""
    c = policy.architecture
    weights = _weights(policy)
    requests = _requests(c, rows, prompt)
    layout = _layout(rows, prompt, new, admit=rows)
    arms = [_sampler("amrsd_jax", policy, layout, weights, [requests])]
    if peer:
        arms.append(peer.sampling(c, weights, requests, new))

    sizes = dict(rows=rows, prompt=prompt, new=new)
    return Case("sampling", "fixed length", sizes, lambda _: floors.sampling(c, **sizes), tuple(arms))


def long_tail(policy: Policy, peer: ModuleType | None, rows: int, slots: int, prompt: int, new: int) -> Case:
    """Log-normal lengths, more prompts than slots: slots refilled as they become free, or batches that wait for their last."""
    del peer  # none refills slots
    c = policy.architecture
    policy = LogNormalLengths(c, prompt=prompt, median=new // TAIL, spread=SPREAD, longest=new)
    weights = _weights(policy)
    requests = _requests(c, rows, prompt)
    layout = _layout(slots, prompt, new, admit=max(1, slots // 4), stop_tokens=(policy.stop,))
    batches = [requests[i : i + slots] for i in range(0, rows, slots)]
    arms = (
        _sampler("continuous", policy, layout, weights, [requests]),
        _sampler("lockstep", policy, layout, weights, batches),
    )

    sizes = dict(rows=rows, slots=slots, prompt=prompt, new=new, median=policy.median, spread=policy.spread)
    return Case("sampling", "long tail", sizes, lambda tokens: floors.long_tail(c, rows, slots, prompt, tokens), arms)


def scoring(policy: Policy, peer: ModuleType | None, rows: int, length: int, together: int) -> Case:
    """Log-probabilities of rows of one prompt token and length - 1 scored ones, `together` rows at a time."""
    c = policy.architecture
    mesh = _mesh()
    params = init_params(policy, _key(), mesh)
    tokens = _tokens(c, rows, length)
    arrays = (tokens[:, :1], np.ones(rows, np.int32), tokens[:, 1:])
    how = dict(rows=together, temperature=1.0, chunk=DEFAULTS.scoring.chunk, sharding=meshes.rows(mesh))

    def run() -> int:
        score.score_rows(policy, params, *arrays, **how)
        return tokens.size

    def programs():
        piece = [jax.ShapeDtypeStruct((together, *a.shape[1:]), a.dtype) for a in arrays]
        how = dict(temperature=1.0, chunk=DEFAULTS.scoring.chunk)
        return [score._scorer.lower(policy, params, *piece, **how).compile()]

    arms = [Arm("amrsd_jax", run, programs)]
    if peer:
        arms.append(peer.scoring(c, _for_sampling(policy, params), tokens, together))
    sizes = dict(rows=rows, length=length, together=together)
    return Case("scoring", "forward", sizes, lambda _: floors.scoring(c, rows, length), tuple(arms))


def learning(policy: Policy, peer: ModuleType | None, rows: int, length: int) -> Case:
    """One clipped policy-gradient update with float32 masters, AdamW and clipping."""
    del peer
    c = policy.architecture
    mesh = _mesh()
    schedule = make_schedule(learning_rate=1e-6, schedule="constant", warmup_updates=0, total_updates=1)
    optimizer = make_optimizer(schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip_norm=1.0)
    loss = DEFAULTS.loss
    objective = Objective(
        ratio=loss.ratio, clip_low=loss.clip_low, clip_high=loss.clip_high, reduction=loss.reduction,
        constant_length=None, kl=0.0, entropy=0.0, importance_cap=None, temperature=1.0, chunk=DEFAULTS.scoring.chunk,
    )  # fmt: skip
    step = make_train_step(policy, optimizer, schedule, objective, mesh)
    state = init_state(policy, optimizer, init_params(policy, _key(), mesh), mesh)
    batch = jax.device_put(_batch(_tokens(c, rows, length), c.vocab_size), meshes.rows(mesh))

    def run() -> int:
        nonlocal state  # donated
        state, _ = jax.block_until_ready(step(state, batch))
        return rows * length

    arms = (Arm("amrsd_jax", run, lambda: [step.lower(state, batch).compile()]),)
    sizes = dict(rows=rows, length=length)
    return Case("learning", "update", sizes, lambda _: floors.learning(c, **sizes), arms)


# ---------------------------------------------------------------- how they are run


def _sampler(name: str, policy: Policy, layout: Layout, weights: Params, batches: Sequence[list[Request]]) -> Arm:
    """Samples batches of requests one after the other."""

    def run() -> int:
        return sum(len(c.tokens) for requests in batches for c in complete(policy, layout, weights, requests, _key()))

    def programs():
        slots = engine.empty(policy, layout)
        engine.widen(layout, slots, layout.length)
        return [engine.decode.lower(policy, layout, policy.unstack(weights), slots, np.int32(0)).compile()]

    return Arm(name, run, programs)


def _layout(slots: int, prompt: int, new: int, *, admit: int, stop_tokens: tuple[int, ...] = ()) -> Layout:
    return Layout(slots, 1, prompt, new, admit=admit, segment=DEFAULTS.rollout.segment, stop_tokens=stop_tokens)


_for_sampling = jax.jit(Policy.for_sampling, static_argnums=0)


def _weights(policy: Policy) -> Params:
    return _for_sampling(policy, init_params(policy, _key(), _mesh()))


def _mesh() -> jax.sharding.Mesh:
    return meshes.make_mesh(1, 1, 1)


def _key() -> jax.Array:
    return rng.key(0, "benchmark")


def _tokens(c: Architecture, rows: int, length: int) -> np.ndarray:
    """Random ids; 0 and 1 are left to those who need a padding or stop token."""
    return rng.host(0, "benchmark").integers(2, c.vocab_size, (rows, length), np.int32)


def _requests(c: Architecture, rows: int, prompt: int) -> list[Request]:
    return [Request(tokens.tolist(), row=row) for row, tokens in enumerate(_tokens(c, rows, prompt))]


def _batch(tokens: np.ndarray, vocabulary: int) -> Batch:
    """Rows of one prompt token, advantages of either sign, old log-probabilities as of a uniform policy."""
    prompt, response = tokens[:, :1], tokens[:, 1:]
    advantage = rng.host(0, "benchmark", 1).standard_normal(response.shape, np.float32)
    old = np.full_like(advantage, -np.log(vocabulary))
    return Batch(
        prompt=prompt, prompt_length=np.ones(len(tokens), np.int32), response=response, mask=np.ones_like(old),
        logp_sampler=old, logp_old=old, logp_reference=np.zeros_like(old), token_advantage=advantage,
    )  # fmt: skip
