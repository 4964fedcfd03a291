"""Question: how much of the work on rows of a long tail is padding, and how much of it do widths by length save?

Command:  python -m experiments.padding      (counts tokens, prints the table of docs/performance.md)
Lengths:  responses log-normal, median 1,000 of at most 8,192, spread 1; prompts median 300 of at most 2,048, spread 0.4.
"""

import numpy as np

from amrsd_jax import lengths
from amrsd_jax.scoring.score import _alike

PROMPT, RESPONSE, DRAWS = 2048, 8192, 50
SIZES = ((256, 16), (256, 8), (64, 16))  # rows, rows at a time


def savings(rows: int, together: int, generator: np.random.Generator) -> tuple[float, float, float]:
    """Tokens of rows padded to the budget, over those of scoring's pieces, of learning's pieces, and of the rows themselves."""

    def drawn(median, spread, most):
        return np.clip(median * np.exp(spread * generator.standard_normal(rows)), 1, most).astype(int)

    tokens = drawn(1000, 1.0, RESPONSE) + drawn(300, 0.4, PROMPT)
    widths = lengths.buckets(tokens, PROMPT + RESPONSE)
    scored = sum(together * widths[piece[0]] for piece in _alike(widths, together))
    learned = together * np.sort(widths)[::-1][::together].sum()
    return tuple(rows * (PROMPT + RESPONSE) / np.array([scored, learned, tokens.sum()]))


def table() -> str:
    """A Markdown line for each of SIZES."""
    generator = np.random.default_rng(0)
    lines = [
        "| rows, rows at a time | rows of one width together (scoring) | sorted, a piece as wide as its widest row (learning) "
        "| no padding at all |",
        "|---|---|---|---|",
    ]
    for rows, together in SIZES:
        means = np.mean([savings(rows, together, generator) for _ in range(DRAWS)], axis=0)
        lines.append(f"| {rows}, {together} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
