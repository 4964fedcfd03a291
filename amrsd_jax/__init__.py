"""Token-level credit assignment for reinforcement learning with verifiable rewards, in JAX."""

import os

# transformers serves tokenizers and chat templates here, and would remark at every start that there is no PyTorch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# Fake CPU devices wait for one another inside a collective, each holding a thread. XLA makes as many threads as there are cores,
# or as NPROC says: with fewer cores than devices a program would wait for ever, or be ended without a word.
if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
    os.environ.setdefault("NPROC", "64")
