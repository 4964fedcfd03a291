"""Rewrites links that leave docs/, which are right on a forge, to the pages that the site has in their place."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")  # the path in [text](path#anchor)


def page_of(path: str) -> str:
    """Returns the site's page or file for a file or folder of the repository, both relative to their roots."""
    if path in TOP:
        return TOP[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    name = path.removesuffix(".py").removesuffix("/__init__")
    if name.partition("/")[0] == "amrsd_jax":
        return f"reference/{name}/index.md" if (ROOT / name).is_dir() else f"reference/{name}.md"
    if path.endswith(".ipynb"):
        return f"tutorials/{Path(path).stem}.md"
    return f"source/{path}.md"


def targets(markdown: str, base: str) -> list[str]:
    """Returns the files and folders of the repository that a text in the folder `base` links to."""
    paths = (posixpath.normpath(posixpath.join(base, path)) for path in _LINK.findall(markdown))
    return [path for path in paths if (ROOT / path).exists()]


def rewrite(markdown: str, base: str, page: str) -> str:
    """Returns a text of the folder `base` with its links to files of the repository made relative to the site's `page`."""

    def target(match: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(base, match[1]))
        exists = (ROOT / path).exists()
        return posixpath.relpath(page_of(path), posixpath.dirname(page)) if exists else match[1]

    return _LINK.sub(target, markdown)


def on_page_markdown(markdown, *, page, **_):
    return None if page.file.generated_by else rewrite(markdown, "docs", page.file.src_uri)
