"""Token-level credit assignment for reinforcement learning with verifiable rewards, in JAX."""

import os

# transformers serves tokenizers and chat templates here, and would remark at every start that there is no PyTorch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
