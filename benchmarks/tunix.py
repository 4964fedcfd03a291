"""Makes arms that run tunix: its sampler, scoring and update, with our weights in its Qwen3 model.

tunix is an optional extra (`pip install -e '.[peer]'`); this module is written for google-tunix 0.1.7.
"""

import importlib.util
from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import nnx

from amrsd_jax.policy import Architecture, Params
from amrsd_jax.records import Batch, Request
from benchmarks.measure import Arm

PAD = 0
END = 1


def missing(c: Architecture) -> str | None:
    """Returns why tunix cannot run such a model; None if it can."""
    if not c.qk_norm or c.qkv_bias or c.rope_scaling or c.rope_theta != 1e6:
        return "its Qwen3 has QK-norm, no biases and a rotary base of 1e6"
    if importlib.util.find_spec("tunix") is None:
        return "not installed (pip install google-tunix==0.1.7)"
    return None


def sampling(c: Architecture, weights: Params, requests: list[Request], new: int) -> Arm:
    """Samples with its `Sampler` at temperature 1, with log-probabilities and without an early stop."""
    from tunix.generate.sampler import CacheConfig, Sampler

    prompt = len(requests[0].prompt)
    model = nnx.merge(*split(c, weights))
    sampler = Sampler(model, _Numbers(), CacheConfig(prompt + new, c.layers, c.kv_heads, c.head_dim))
    texts = [" ".join(map(str, request.prompt)) for request in requests]

    def run() -> int:
        sampled = sampler(
            texts, max_generation_steps=new, max_prompt_length=prompt, temperature=1.0, top_p=1.0, seed=1,
            return_logprobs=True, eos_tokens=[c.vocab_size],
        )  # fmt: skip
        return sum(map(len, sampled.tokens))

    return Arm("tunix", run)


def scoring(
    c: Architecture, weights: Params, prompt: np.ndarray, response: np.ndarray, together: int, tokens: int
) -> Arm:
    """Scores with its `compute_per_token_logps`, without entropies. Rows, `tokens` tokens in total, are padded to the longest."""
    graph, state = split(c, weights)

    def run() -> int:
        logprobs(graph, state, prompt, response, together)
        return tokens

    return Arm("tunix", run)


def logprobs(
    graph: nnx.GraphDef, state: nnx.State, prompt: np.ndarray, response: np.ndarray, together: int
) -> np.ndarray:
    """Returns log-probabilities of responses [N, T] to prompts [N, P] of one length, `together` rows at a time."""
    from tunix.rl.common import compute_per_token_logps

    starts = range(0, len(prompt), together)
    rows = (jax.device_put((prompt[i : i + together], response[i : i + together])) for i in starts)
    scored = [compute_per_token_logps(graph, state, *part, PAD, END) for part in rows]
    return np.concatenate(jax.device_get(scored))


def learning(
    c: Architecture,
    params: Params,
    given: Batch,
    optimizer: optax.GradientTransformation,
    parts: int,
    clip: float,
    tokens: int,
) -> Arm:
    """Updates with its trainer and GRPO loss without a KL term, accumulating `parts` micro-batches.

    It also computes entropies and the gradient norm. Rows, `tokens` tokens in total, are padded to the longest.
    """
    model, step = updating(c, params, optimizer, parts, clip)

    def run() -> int:
        for rows in np.split(np.arange(len(given.mask)), parts):
            step(given, rows)
        jax.block_until_ready(nnx.state(model))
        return tokens

    run()  # the step is compiled twice; the second time, for the state that the first update returns, counts in the first turn
    return Arm("tunix", run)


def updating(
    c: Architecture, params: Params, optimizer: optax.GradientTransformation, parts: int, clip: float
) -> tuple[nnx.Module, Callable[[Batch, np.ndarray], None]]:
    """Returns its model with our parameters in float32, and a function that accumulates rows and updates every `parts` calls."""
    from tunix.rl.algo_core import grpo_loss_fn
    from tunix.rl.common import TrainExample
    from tunix.rl.grpo.grpo_learner import GRPOConfig
    from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

    algorithm = GRPOConfig(beta=0.0, epsilon=clip)
    algorithm.temperature = 1.0
    model = nnx.merge(*split(c, params, masters=True))
    config = TrainingConfig(eval_every_n_steps=1, gradient_accumulation_steps=None if parts == 1 else parts)
    trainer = PeftTrainer(model, optimizer, config)
    trainer.with_loss_fn(lambda model, rows: grpo_loss_fn(model, rows, algorithm, PAD, END), has_aux=True)
    trainer.with_gen_model_input_fn(lambda rows: {"rows": rows})
    step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)

    def learn(given: Batch, rows: np.ndarray) -> None:
        prompt, response, mask, advantage, old = jax.device_put(
            [a[rows] for a in (given.prompt, given.response, given.mask, given.token_advantage, given.old_logprobs)]
        )
        step(TrainExample(
            prompt_ids=prompt, prompt_mask=prompt != PAD, completion_ids=response, completion_mask=mask,
            advantages=advantage, ref_per_token_logps=None, old_per_token_logps=old,
        ))  # fmt: skip

    return model, learn


def split(c: Architecture, weights: Params, *, masters: bool = False) -> tuple[nnx.GraphDef, nnx.State]:
    """Returns the graph and state of its Qwen3 with our weights, in the compute dtype or as float32 master weights."""
    from tunix.models.qwen3.model import ModelConfig, Qwen3

    dtype = "float32" if masters else c.dtype
    config = ModelConfig(
        num_layers=c.layers, vocab_size=c.vocab_size, embed_dim=c.width, hidden_dim=c.ffn, num_heads=c.heads,
        head_dim=c.head_dim, num_kv_heads=c.kv_heads, rope_theta=int(c.rope_theta), norm_eps=c.norm_eps,
        use_tied_embedding=c.tied, dtype=c.dtype, param_dtype=dtype,
    )  # fmt: skip
    graph, state = nnx.split(nnx.eval_shape(lambda: Qwen3(config, rngs=nnx.Rngs(0))))
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda a: a.astype(dtype), renamed(c, weights)))
    return graph, state


def renamed(c: Architecture, weights: Params) -> dict:
    """Returns our parameters under its names."""

    def layer(w):
        def heads(name):
            return {"w": w[name]["kernel"].reshape(c.width, -1, c.head_dim)}

        return {
            "input_layernorm": {"w": w["attention_norm"]["scale"]},
            "attn": {
                "q_proj": heads("query"), "k_proj": heads("key"), "v_proj": heads("value"),
                "o_proj": {"w": w["output"]["kernel"].reshape(-1, c.head_dim, c.width)},
                "q_norm": {"w": w["query_norm"]["scale"]}, "k_norm": {"w": w["key_norm"]["scale"]},
            },
            "post_attention_layernorm": {"w": w["ffn_norm"]["scale"]},
            "mlp": {f"{name}_proj": {"kernel": w[name]["kernel"]} for name in ("gate", "up", "down")},
        }  # fmt: skip

    layers = {i: layer(jax.tree.map(lambda a, i=i: a[i], weights["layers"])) for i in range(c.layers)}
    head = {} if c.tied else {"lm_head": {"w": weights["head"]["kernel"]}}
    ends = {
        "embedder": {"input_embedding": weights["embed"]["embedding"]},
        "final_norm": {"w": weights["final_norm"]["scale"]},
    }
    return {"layers": layers, **ends, **head}


class _Numbers:
    """A tokenizer whose texts are the ids themselves."""

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0  # the sampler does not prepend it

    def eos_id(self) -> int:
        return END

    def pad_id(self) -> int:
        return PAD
