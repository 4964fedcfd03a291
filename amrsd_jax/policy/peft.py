"""Adapters as a folder that PEFT loads beside the model they were trained on: `PeftModel.from_pretrained(model, folder)`."""

import json
from pathlib import Path

import jax
import numpy as np

from amrsd_jax.policy import tensors
from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.huggingface import LAYER, appears
from amrsd_jax.policy.tensors import Pending
from amrsd_jax.policy.transformer import Params

_LEAVES = {"lora_a": "lora_A", "lora_b": "lora_B"}  # [in, r] and [r, out] here, transposed there


def save_adapters(folder: Path, architecture: Architecture, params: Params, *, base_model: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, in float32.

    Args:
      folder: must not exist, or be empty.
      architecture: with adapters.
      params: of that policy; only the adapters are read.
      base_model: folder or hub id of the model they belong to.

    Raises:
      FileExistsError: the folder holds something.
    """
    lora = architecture.lora
    names = {target: LAYER[f"{target}/kernel"].removesuffix(".weight") for target in lora.targets}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": [name.rpartition(".")[2] for name in names.values()],
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }

    def pending(layer: int, target: str, leaf: str) -> Pending:
        stack = params["layers"][target][leaf]
        name = f"base_model.model.model.layers.{layer}.{names[target]}.{_LEAVES[leaf]}.weight"
        return Pending(name, stack.shape[:0:-1], lambda: np.asarray(jax.device_get(stack[layer])).T)

    layers = range(architecture.layers)
    written = [pending(layer, target, leaf) for layer in layers for target in lora.targets for leaf in _LEAVES]
    with appears(folder) as draft:
        tensors.write_file(draft / "adapter_model.safetensors", written, np.dtype(np.float32))
        (draft / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
