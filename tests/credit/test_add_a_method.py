"""The walk of docs/add_a_method.md, followed: its rule is a rule, registered by its name alone, and trains."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from amrsd_jax import config as configuration
from amrsd_jax import credit
from amrsd_jax.checks import validate

WALK = Path(__file__).parents[2] / "docs" / "add_a_method.md"


def test_the_walk(monkeypatch):
    block = re.search(r"```python\n(.*?)```", WALK.read_text(), flags=re.DOTALL)[1]
    written = {}
    exec(compile(block, "surprise.py", "exec"), written)
    rule = written["RULE"]
    monkeypatch.setitem(credit.RULES, rule.name, rule)

    config = configuration.base()
    config.credit.rule = "surprise"
    config.credit.args.limit = 3.0
    validate(config)
    assert configuration.resolve(config).credit.to_dict() | {"args": None} == {
        "rule": "surprise", "context": "feedback", "args": None, "normalize": True, "exact_savings": True,
    }  # fmt: skip

    student = jnp.array([[-1.0, -9.0], [-1.0, -9.0]])
    result, _ = credit.get("surprise")(jnp.array([-1.0, 1.0]), student, student, jnp.ones((2, 2)), step=0)
    np.testing.assert_allclose(result, [[-0.5, -1.0], [1.0, 1.0]])
    assert rule.needs(np.array([-1.0, 1.0]), np.array([0.0, 1.0]), 0).tolist() == [True, False]
