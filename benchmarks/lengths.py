"""Makes responses of log-normal lengths: by a policy that ends them, or as a list of lengths."""

import dataclasses
import functools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from amrsd_jax import rng
from amrsd_jax.policy import Policy


@dataclasses.dataclass(frozen=True)
class LogNormalLengths(Policy):
    """A policy that ends a response of a fixed prompt length after t tokens with the hazard of a log-normal distribution.

    Only the stop token's logit is replaced, so lengths follow from the sampler's own noise, which is a function of row
    and position: every schedule of the same rows gives the same lengths. Hidden states are float32, with the
    number of tokens so far as one more feature.

    Attributes:
      prompt: P, tokens of every prompt.
      stop: the token that ends a response.
      median, spread: median of the length in tokens, and standard deviation of its logarithm.
      longest: most tokens of a response.
    """

    prompt: int = 1
    stop: int = 0
    median: int = 64
    spread: float = 1.0
    longest: int = 512

    def prefill(self, params, tokens, lengths):
        hidden, cache = super().prefill(params, tokens, lengths)
        return _append(hidden, jnp.zeros_like(lengths)), cache

    def decode(self, weights, token, position, cache):
        hidden, cache = super().decode(weights, token, position, cache)
        return _append(hidden, position - self.prompt + 1), cache

    def logits(self, params, hidden):
        logits = super().logits(params, hidden[..., :-1]).at[..., self.stop].set(-jnp.inf)
        odds = jnp.asarray(stop_odds(self.median, self.spread, self.longest))[hidden[..., -1].astype(jnp.int32)]
        return logits.at[..., self.stop].set(jax.nn.logsumexp(logits, axis=-1) + jnp.log(odds))


def _append(hidden, generated):
    return jnp.concatenate([hidden.astype(jnp.float32), generated[:, None].astype(jnp.float32)], axis=-1)


@functools.lru_cache
def stop_odds(median: int, spread: float, longest: int) -> np.ndarray:
    """Returns the odds p / (1 - p) of ending at token t + 1 after t tokens, t < longest, for a log-normal length >= 1."""

    def ended(length):
        return 0.5 * (1 + math.erf(math.log(length / median) / (spread * math.sqrt(2))))

    by = np.array([0.0] + [ended(t + 0.5) for t in range(1, longest + 1)])
    left = 1 - by[:-1]
    p = np.divide(by[1:] - by[:-1], left, out=np.ones(longest), where=left > 0)
    return (p / np.maximum(1 - p, 1e-9)).astype(np.float32)


def log_normal(count: int, median: int, spread: float, longest: int) -> Integer[np.ndarray, " N"]:
    """Returns the lengths at `count` equally spaced quantiles, at most `longest`, in a fixed random order."""
    at = (np.arange(count) + 0.5) / count
    lengths = [median * math.exp(spread * statistics.NormalDist().inv_cdf(p)) for p in at]
    order = rng.host(0, "benchmark", 2).permutation(count)
    return np.clip(np.rint(lengths).astype(int), 1, longest)[order]
