"""The quickstart with a small model of another family: mixture of experts, Gemma 3, Gemma 2, Olmo 3 or SmolLM3.

Command:   python -m amrsd_jax.main --config=configs/families.py:qwen3_moe --workdir=runs/qwen3_moe
Hardware:  two CPU cores.

A released model is `--config.model=FOLDER_OR_HUB_ID`, which brings these fields along.
"""

from amrsd_jax.names import nearest
from configs import quickstart

_GEMMA = dict(norms="both", norm_unit_offset=True, activation="gelu", embed_scale=True, sliding_window=24)
FAMILIES = {  # fields of policy.Architecture, as in `FAMILIES` of amrsd_jax/policy/families.py
    "qwen3_moe": dict(ffn=128, experts=8, experts_per_token=2),
    "gemma3": dict(_GEMMA, full_every=3, sliding_rope_theta=1e3),
    "gemma2": dict(
        _GEMMA, qk_norm=False, full_every=2, attention_softcap=50.0, logit_softcap=30.0, sliding_rope_scaled=True
    ),
    "olmo3": dict(norms="post", qk_norm_whole=True, sliding_window=24, full_every=3, tied=False),
    "smollm3": dict(qk_norm=False, nope_every=3),
}


def get_config(family: str = ""):
    if family not in FAMILIES:
        raise ValueError(f"family {family!r}: {nearest(family, FAMILIES)}")
    config = quickstart.get_config()
    config.architecture.update(FAMILIES[family])
    return config
