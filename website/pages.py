"""Makes the pages that the repository has as something else: README, notebooks, sources, modules and credit rules."""

import ast
import json
import re
from pathlib import Path

import griffe
import rules
from docstrings import SplitNames
from links import ROOT, TOP, page_of, rewrite, targets
from mkdocs.structure.files import File


def on_config(config):
    """Loads the package, without running it, and adds the pages made from code to the navigation."""
    global package, declared
    package = griffe.load("amrsd_jax", search_paths=[ROOT], extensions=griffe.load_extensions(SplitNames))
    declared = rules.declarations(package)
    nav = {title: pages for section in config.nav for title, pages in section.items()}
    nav["Tutorials"] += [page_of(str(path.relative_to(ROOT))) for path in _notebooks()]
    nav["Methods"] += [{name: f"methods/{name}.md"} for name in sorted(declared)]
    config.nav.append({"API": _module_nav(package)["amrsd_jax"]})


def on_files(files, *, config):
    """Adds the pages."""
    pages = {page: rewrite((ROOT / path).read_text("utf-8"), "", page) for path, page in TOP.items()}
    for path in _notebooks():
        page = page_of(str(path.relative_to(ROOT)))
        pages[page] = rewrite(_notebook(path), "notebooks", page)
    for module in _modules(package):
        pages[_page(module)] = f"---\ntitle: {module.name}\n---\n\n::: {module.path}\n"
    pages |= {f"methods/{name}.md": rules.page(package, rule) for name, rule in declared.items()}
    linked = [targets(file.content_string, "docs") for file in files.documentation_pages()]
    linked += [targets((ROOT / path).read_text("utf-8"), "") for path in TOP]
    for path in {path for paths in linked for path in paths if page_of(path).startswith("source/")}:
        pages[page_of(path)] = _source(path)
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown, *, page, **_):
    """Links the rules in the first column of tables to their pages."""

    def link(match: re.Match) -> str:
        return f"[`{match[1]}`](methods/{match[1]}.md)" if match[1] in declared else match[0]

    if page.file.src_uri in ("methods.md", "architecture.md"):
        return re.sub(r"^\|[^|]*", lambda cell: re.sub(r"`(\w+)`", link, cell[0]), markdown, flags=re.MULTILINE)


def _notebooks():
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def _notebook(path: Path) -> str:
    """Returns the text and code of a notebook, without its output."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    cells.append(("markdown", f"*This is the notebook `notebooks/{path.name}`, without its output.*"))
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells)


def _source(path: str) -> str:
    """Returns a page with the text of a file, or the names and first lines of the Python files in a folder."""
    if (ROOT / path).is_dir():
        files = [file for file in sorted((ROOT / path).glob("*.py")) if file.name != "__init__.py"]
        first = [ast.get_docstring(ast.parse(file.read_text("utf-8"))) for file in files]
        return f"# {path}\n\n" + "".join(
            f"- `{file.name}`: {text.splitlines()[0]}\n" for file, text in zip(files, first, strict=True)
        )
    return f"# {path}\n\n``````{path.rpartition('.')[2]}\n{(ROOT / path).read_text('utf-8')}``````\n"


def _modules(module):
    """Returns a module and all public modules below it."""
    below = [m for m in module.modules.values() if not m.is_alias and not m.name.startswith("_")]
    return [module, *(each for m in sorted(below, key=lambda m: m.name) for each in _modules(m))]


def _page(module) -> str:
    return page_of(str(module.filepath.relative_to(ROOT)))


def _module_nav(module) -> dict:
    below = [m for m in _modules(module) if m.parent is module]
    return {module.name: [_page(module), *map(_module_nav, below)] if below else _page(module)}
