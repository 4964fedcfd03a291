"""The site: links that leave docs/ lead to its pages, and every credit rule has one."""

import ast

import pytest

from amrsd_jax import credit
from website.links import ROOT, page_of, rewrite, targets


@pytest.mark.parametrize(
    "path, page",
    [
        ("README.md", "index.md"),
        ("docs/usage.md", "usage.md"),
        ("amrsd_jax/credit/amrsd.py", "reference/amrsd_jax/credit/amrsd.md"),
        ("amrsd_jax/credit/__init__.py", "reference/amrsd_jax/credit/index.md"),
        ("amrsd_jax/credit", "reference/amrsd_jax/credit/index.md"),
        ("notebooks/01_tour.ipynb", "tutorials/01_tour.md"),
        ("configs/methods.py", "source/configs/methods.py.md"),
    ],
)
def test_pages(path, page):
    assert page_of(path) == page


def test_links_of_docs():
    text = (
        "[a](../README.md#results) [b](../amrsd_jax/train.py) [c](usage.md#data) "
        "[d](https://x.org/README.md) [e](#a) [f](../no.py)"
    )
    assert rewrite(text, "docs", "metrics.md").split() == [
        "[a](index.md#results)",
        "[b](reference/amrsd_jax/train.md)",
        *text.split()[2:],
    ]
    assert targets(text, "docs") == ["README.md", "amrsd_jax/train.py", "docs/usage.md"]


def test_links_of_the_readme_and_of_notebooks():
    assert (
        rewrite("![x](docs/quickstart.svg), [u](docs/usage.md)", "", "index.md")
        == "![x](quickstart.svg), [u](usage.md)"
    )
    assert rewrite("[f](../docs/findings.md)", "notebooks", "tutorials/01_tour.md") == "[f](../findings.md)"


def test_every_rule_has_a_page(monkeypatch):
    griffe = pytest.importorskip("griffe", reason="comes with the extras test and docs")
    monkeypatch.syspath_prepend(ROOT / "website")  # as mkdocs does for its hooks
    import rules

    declared = rules.declarations(griffe.load("amrsd_jax", search_paths=[ROOT]))
    assert declared.keys() == credit.RULES.keys()
    for name, rule in credit.RULES.items():
        assert ast.literal_eval(declared[name].get("context", "'none'")) == rule.context
        assert ast.literal_eval(declared[name].get("teacher", "'policy'")) == rule.teacher
