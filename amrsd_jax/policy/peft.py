"""Writes adapters as a folder that PEFT loads onto their base model: `PeftModel.from_pretrained(model, folder)`."""

import json
from pathlib import Path

import jax
import numpy as np

from amrsd_jax.policy import tensors
from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.families import LAYER_TENSORS
from amrsd_jax.policy.huggingface import write_new_folder
from amrsd_jax.policy.tensors import LazyTensor
from amrsd_jax.policy.transformer import Params

_LEAVES = {"lora_a": "lora_A", "lora_b": "lora_B"}  # [in, r] and [r, out] here, transposed in PEFT


def save_adapters(folder: Path, architecture: Architecture, params: Params, *, base_model: str | None) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, in float32.

    Args:
      folder: a path that does not exist, or an empty folder.
      architecture: an architecture with adapters.
      params: parameters of that policy, of which only the adapters are read.
      base_model: folder or hub id of the model that the adapters belong to; None if `transformers` has none under a name.

    Raises:
      FileExistsError: the folder is not empty.
    """
    lora = architecture.lora
    names = {target: LAYER_TENSORS[f"{target}/kernel"].removesuffix(".weight") for target in lora.projections}
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

    def lazy(layer: int, target: str, leaf: str) -> LazyTensor:
        stack = params["layers"][target][leaf]
        return LazyTensor(stack.shape[:0:-1], lambda: np.asarray(jax.device_get(stack[layer])).T)

    adapters = {
        f"base_model.model.model.layers.{layer}.{name}.{_LEAVES[leaf]}.weight": lazy(layer, target, leaf)
        for layer in range(architecture.layers)
        for target, name in names.items()
        for leaf in _LEAVES
    }

    def write(draft: Path) -> None:
        tensors.write_file(draft / "adapter_model.safetensors", adapters, np.dtype(np.float32))
        (draft / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")

    write_new_folder(folder, write)
