"""Question: how much of the work on rows of very different lengths is padding, and how much of it do widths by length save?

Command:  python -m experiments.padding      (counts tokens, prints the table of docs/performance.md)
Lengths:  responses log-normal, median 1,000 of at most 8,192, spread 1; prompts median 300 of at most 2,048, spread 0.4.
"""

import numpy as np

from amrsd_jax import lengths
from amrsd_jax.markdown import table as markdown
from experiments.common import Study, no_arguments

PROMPT, RESPONSE, SAMPLES = 2048, 8192, 50
SIZES = ((256, 16), (256, 8), (64, 16))  # rows, rows at a time


def savings(rows: int, together: int, generator: np.random.Generator) -> np.ndarray:
    """Returns the tokens of fully padded rows over those that scoring computes, that learning computes, and that are real."""

    def sample(median, spread, longest):
        return np.clip(median * np.exp(spread * generator.standard_normal(rows)), 1, longest).astype(int)

    tokens = sample(1000, 1.0, RESPONSE) + sample(300, 0.4, PROMPT)
    widths = lengths.buckets(tokens, PROMPT + RESPONSE)
    width, count = np.unique(widths, return_counts=True)
    scored = (together * width * np.ceil(count / together)).sum()  # a piece holds rows of one width
    learned = together * np.sort(widths)[::-1][::together].sum()  # a piece is as wide as its widest row
    return rows * (PROMPT + RESPONSE) / np.array([scored, learned, tokens.sum()])


def table(_rows: list | None = None) -> str:
    """Formats one line for each of SIZES."""
    generator = np.random.default_rng(0)
    means = [np.mean([savings(*size, generator) for _ in range(SAMPLES)], axis=0) for size in SIZES]
    columns = [
        "rows, rows at a time",
        "rows of one width together (scoring)",
        "sorted, a piece as wide as its widest row (learning)",
        "no padding at all",
    ]
    lines = [
        [f"{rows}, {together}", *(f"{value:.1f}" for value in mean)]
        for (rows, together), mean in zip(SIZES, means, strict=True)
    ]
    return markdown(columns, lines)


STUDY = Study("padding", None, table, page="docs/performance.md")

if __name__ == "__main__":
    no_arguments(__doc__)
    print(table())
