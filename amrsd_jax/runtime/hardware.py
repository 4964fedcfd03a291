"""Computes metrics of the devices: utilisation and memory."""

import jax

# Dense bfloat16 FLOP/s of a device, from the vendors' data sheets, by the beginning of JAX's device kind; first match wins.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def model_flops_utilisation(flops: float, seconds: float, devices: int, kind: str) -> float | None:
    """Returns `flops` per `seconds` as a share of the devices' peak rate; None for an unknown kind of device."""
    peak = next((peak for name, peak in PEAK_FLOPS.items() if kind.startswith(name)), None)
    return None if peak is None else flops / (seconds * devices * peak)


def peak_memory_gib() -> float | None:
    """Returns the largest peak memory of this process's devices so far; None where they do not report it."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return None if None in peaks else max(peaks) / 2**30
