"""Random small checkpoints of every family, and the logits that PyTorch gives them.

`python -m tests.policy.golden` rewrites golden.json, with PyTorch and transformers; tests compare with it where they are
not installed. Weights are made by NumPy from the tensors' names, so that the file holds logits alone.
"""

import json
import zlib
from pathlib import Path

import numpy as np

from amrsd_jax.policy.architecture import Architecture, RopeScaling

FILE = Path(__file__).with_suffix(".json")
SIZES = dict(vocab_size=96, width=32, layers=3, heads=4, kv_heads=2, head_dim=8, ffn=48, max_positions=64)
FAMILIES = {
    "qwen2": Architecture(**SIZES, qk_norm=False, qkv_bias=True, tied=False),
    "qwen3": Architecture(**SIZES | dict(head_dim=16)),  # heads x head_dim is not the width
    "llama": Architecture(
        **SIZES, qk_norm=False, rope_theta=5e5, rope_scaling=RopeScaling(32.0, 1.0, 4.0, 16), norm_eps=1e-5
    ),
}
TOKENS = np.random.default_rng(0).integers(0, 96, (2, 40))


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of a tensor, float32, from its name: norms near 1, the rest large enough to matter."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    return 1 + 0.1 * noise if "norm" in name else 0.15 * noise


def kept(logits) -> np.ndarray:
    """What the file holds of logits [2, 40, V]: the first, the eighth and the last position, 24 tokens."""
    return np.asarray(logits)[:, [0, 7, 39], :24].reshape(6, 24)


def torch_logits(folder: Path) -> np.ndarray:
    """Logits [2, 40, V] of a model folder, as `transformers` loads it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy()


def torch_checkpoint(family: str, folder: Path, **how) -> None:
    """Writes a checkpoint with `transformers` alone: config, names and files are its own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from amrsd_jax.policy.huggingface import config_json

    theirs = config_json(FAMILIES[family])
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**theirs))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(values(name, tuple(parameter.shape))))
    model.save_pretrained(folder, **how)


def main() -> None:
    import tempfile

    golden = {}
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            torch_checkpoint(family, Path(folder))
            golden[family] = [[round(float(x), 6) for x in row] for row in kept(torch_logits(Path(folder)))]
    FILE.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
