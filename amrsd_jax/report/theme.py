"""Colours of the report, once, for a light and a dark scheme; texts keep a contrast of 4.5 to 1 or more."""

import re
from importlib import resources

PALETTE = {  # name: (light, dark)
    "paper": ("#fbfaf7", "#14161a"),
    "card": ("#ffffff", "#1b1e23"),
    "ink": ("#1d1f23", "#e8e6e1"),
    "muted": ("#5f636b", "#a2a7af"),
    "rule": ("#e4e1da", "#2f343b"),
    "s1": ("#1f5fa8", "#7db3ea"),  # series, told apart by lightness as well as by hue
    "s2": ("#c0501b", "#f09a6c"),
    "s3": ("#2a7a57", "#73c9a0"),
    "s4": ("#84479a", "#cba0da"),
    "s5": ("#8a6d0b", "#dcc160"),
    "s6": ("#6a6f78", "#a9aeb7"),
    "blame": ("#c0501b", "#f09a6c"),
    "credit": ("#1f5fa8", "#7db3ea"),
    "blame-fill": ("#f0916a", "#a5452a"),  # behind tokens: ink stays readable on the full colour
    "credit-fill": ("#74aee6", "#28649f"),
    "lighter-fill": ("#d3c07a", "#6d5f1f"),
    "heavier-fill": ("#c9a0d9", "#7b478f"),
}

PHASES = ("warmup", "sample", "verify", "reflect", "score", "credit", "learn", "evaluate", "report", "checkpoint")


def phase_colour(name: str) -> str:
    """Class of chart.css with the colour of a phase of the loop."""
    return f"p{PHASES.index(name) + 1 if name in PHASES else len(PHASES) + 1}"


def asset(name: str, package: str = "amrsd_jax.report") -> str:
    """Text of a file that lies in a package, beside this one unless told, and is shipped as package data."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def variables() -> str:
    """CSS that defines every colour as a variable, light unless the reader's system asks for dark."""
    light, dark = ("".join(f"--{name}:{pair[scheme]};" for name, pair in PALETTE.items()) for scheme in (0, 1))
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def literal(css: str) -> str:
    """`css` with its colour variables written out in both schemes, for SVG viewers that know no variables."""
    light, dark = (re.sub(r"var\(--([\w-]+)\)", lambda name, s=scheme: PALETTE[name[1]][s], css) for scheme in (0, 1))
    return f"{light}\n@media (prefers-color-scheme:dark){{{dark}}}\n"
