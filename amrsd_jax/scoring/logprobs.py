"""Computes log-probabilities of given responses under any policy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from amrsd_jax.policy import Params
from amrsd_jax.scoring.chunks import Model, over_chunks


def concatenate(
    prompt: Integer[Array, "N P"],
    prompt_length: Integer[Array, " N"],
    response: Integer[Array, "N T"],
    width: int | None = None,
) -> Integer[Array, "N S"]:
    """Returns rows of prompt and response without a gap, right-padded to S = `width` >= P tokens; by default P + T.

    Student and teacher pass the same `response` array with different prompts, so their tokens are aligned by construction.
    """
    width = width or prompt.shape[1] + response.shape[1]
    index = jnp.arange(width) - prompt_length[:, None]  # position in the response
    from_prompt = jnp.pad(prompt, ((0, 0), (0, width - prompt.shape[1])))
    from_response = jnp.take_along_axis(response, jnp.clip(index, 0, response.shape[1] - 1), axis=1)
    return jnp.where(index < 0, from_prompt, from_response)


def response_states(
    policy: Model,
    params: Params,
    prompt: Integer[Array, "N P"],
    prompt_length: Integer[Array, " N"],
    response: Integer[Array, "N T"],
    width: int | None = None,
) -> Float[Array, "N T D"]:
    """Returns the hidden state that predicts each response token; arguments as in `token_logprobs`."""
    hidden = policy.forward(params, concatenate(prompt, prompt_length, response, width))
    return before_responses(hidden, prompt_length, response.shape[1])


def before_responses(
    hidden: Float[Array, "N S D"], prompt_length: Integer[Array, " N"], length: int
) -> Float[Array, "N T D"]:
    """Returns of whole rows the hidden states that predict the T = `length` tokens after the prompts."""
    before = prompt_length[:, None] - 1 + jnp.arange(length)
    before = jnp.minimum(before, hidden.shape[1] - 1)  # padding of a response may lie beyond a narrow row
    return jnp.take_along_axis(hidden, before[:, :, None], axis=1)


def token_logprobs(
    policy: Model,
    params: Params,
    prompt: Integer[Array, "N P"],
    prompt_length: Integer[Array, " N"],
    response: Integer[Array, "N T"],
    *,
    temperature: float,
    chunk: int,
    width: int | None = None,
) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
    """Returns log pi(y_t | prompt, y_<t) of every response token, and the entropy of its distribution (nats).

    Args:
      policy, params: the language model.
      prompt, prompt_length: right-padded prompts and their lengths, at least 1.
      response: right-padded responses; values at padding are finite and meaningless.
      temperature: logits are divided by it; the temperature at which the responses were sampled.
      chunk: tokens of one device whose logits exist at one time; memory grows with it, the result does not change.
      width: padded length of prompt and response together; None stands for P + T.
    """
    hidden = response_states(policy, params, prompt, prompt_length, response, width)
    return project(policy, params, hidden, response, temperature=temperature, chunk=chunk)


def project(
    policy: Model,
    params: Params,
    hidden: Float[Array, "N T D"],
    targets: Integer[Array, "N T"],
    *,
    temperature: float = 1.0,
    chunk: int,
) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
    """Returns log-probabilities of targets, and entropies (nats), from hidden states; arguments as in `token_logprobs`."""
    return over_chunks(
        lambda logits, y: target_logprobs(logits / temperature, y), [(policy, params, hidden)], targets, chunk=chunk
    )


def target_logprobs(
    logits: Float[Array, "*n V"], targets: Integer[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Returns the log-probability of each target, and the entropy of its distribution (nats)."""
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    # One pass makes both sums on an accelerator. XLA's CPU compiler would write the exponentials that they share to memory, which
    # takes longer than computing them twice; the barrier keeps it from seeing that they are the same.
    same = jax.lax.platform_dependent(highest, cpu=jax.lax.optimization_barrier, default=lambda a: a)
    total = jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1)
    shifted = logits - same[..., None]
    mean = jnp.sum(jnp.exp(shifted) * shifted, axis=-1) / total
    normaliser = jnp.log(total)
    logprobs = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - highest - normaliser
    return logprobs, normaliser - mean
