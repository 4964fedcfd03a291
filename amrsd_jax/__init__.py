"""Token-level credit assignment for reinforcement learning with verifiable rewards, in JAX."""

import os

# transformers, used for tokenizers and chat templates only, would otherwise warn at every start that PyTorch is missing.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# Fake CPU devices wait for one another inside a collective, each in a thread of its own. XLA starts one thread per core, or
# NPROC threads: with fewer threads than devices a program would hang, or be killed without a message.
if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
    os.environ.setdefault("NPROC", "64")
