"""The language model: architecture, transformer, adapters, checkpoints and tokenizer."""

from amrsd_jax.policy.architecture import PRESETS, Architecture, preset
from amrsd_jax.policy.cache import Cache
from amrsd_jax.policy.huggingface import architecture_of
from amrsd_jax.policy.transformer import Params, Policy

__all__ = ["PRESETS", "Architecture", "Cache", "Params", "Policy", "architecture_of", "preset"]
