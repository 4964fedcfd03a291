"""Makes the page of a credit rule from its module, its declaration, and the rows that docs/ and configs/ have of it."""

import ast
import re

from links import ROOT, page_of, rewrite

Declaration = dict  # of a rule: fields as they are written; its name, module, and the comment above it

_ALWAYS = {"baseline", "context", "teacher"}  # fields that are shown with their default, too
_ELSEWHERE = {"name", "function", "needs_teacher"}
_EMBEDDED = "".join(  # without a heading, whose anchor belongs to the module's page
    f"      {option}: false\n" for option in ("show_root_heading", "show_root_toc_entry")
)


def declarations(package) -> dict[str, Declaration]:
    """Returns every Rule(...) in a RULE or RULES of `amrsd_jax.credit`, by its name, without running the code."""
    fields, declared = package["credit.base.Rule"].attributes, {}
    for module in package["credit"].modules.values():
        text = module.filepath.read_text("utf-8")
        for call in _calls(ast.parse(text)):
            rule = {name: ast.unparse(value) for name, value in zip(fields, call.args, strict=False)}
            rule |= {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            above = "".join(text.splitlines(keepends=True)[: call.lineno - 1])
            comment = re.sub(r"^ *# ?", "", re.search(r"(?: *#.*\n)*$", above)[0], flags=re.MULTILINE)
            name = ast.literal_eval(rule["name"])
            declared[name] = rule | {"name": name, "module": module, "comment": comment}
    return declared


def page(package, rule: Declaration) -> str:
    """Returns the page of a rule."""
    name, module = rule["name"], rule["module"]
    parts = {
        "": f"# {name}\n\n{module.docstring.value}\n\n{rule['comment']}",
        "Formula": f"::: {_object(package, module, rule['function']).path}\n    options:\n{_EMBEDDED}",
        "Declaration": _declaration(package, rule),
        "Use": f"    --config.credit.rule={name}\n\n{_settings(name)}",
        "Where it is from": _rows("methods.md", name),
        "Metrics": _rows("metrics.md", name),
        "Code": f"[`{module.path}`](../{page_of(str(module.filepath.relative_to(ROOT)))})\n",
    }
    return "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in parts.items() if text)


def _calls(tree: ast.Module) -> list[ast.Call]:
    values = [s.value for s in tree.body if isinstance(s, ast.Assign) and s.targets[0].id in ("RULE", "RULES")]
    return [call for value in values for call in getattr(value, "elts", [value])]


def _object(package, module, name: str):
    return package[module.resolve(name).removeprefix("amrsd_jax.")]


def _declaration(package, rule: Declaration) -> str:
    """Returns a table of the fields that differ from their defaults, with their meanings, and which rows need the teacher."""
    kind = package["credit.base.Rule"]
    meanings = next(section.value for section in kind.docstring.parse("google") if section.kind.value == "attributes")
    rows = [
        f"| `{field.name}` | `{rule.get(field.name, kind[field.name].value)}` | {' '.join(field.description.split())} |"
        for field in meanings
        if field.name in _ALWAYS | rule.keys() - _ELSEWHERE
    ]
    table = "\n".join(["| field | value | meaning |", "|---|---|---|", *rows])
    if "needs_teacher" not in rule:
        return table
    rows = _object(package, rule["module"], rule["needs_teacher"]).docstring.value
    return f"{table}\n\nThe teacher scores {rows.removeprefix('Returns ')}"


def _settings(name: str) -> str:
    """Returns a table of the settings that configs/methods.py has of the methods with a rule; "" if there are none."""
    tree = ast.parse((ROOT / "configs/methods.py").read_text("utf-8"))
    methods = next(ast.literal_eval(s.value) for s in tree.body if isinstance(s, ast.Assign))
    rows = []
    for method, sections in methods.items():
        if sections["credit"]["rule"] == name:
            fields = [f"`{s}.{field} = {value!r}`" for s, part in sections.items() for field, value in part.items()]
            rows.append(f"| `{method}` | {', '.join(fields)} |")
    return "\n".join(["| method of `configs/methods.py` | fields |", "|---|---|", *rows]) if rows else ""


def _rows(document: str, name: str) -> str:
    """Returns the tables of a page in docs/, with only the rows whose first cell has the name; "" if there are none."""
    text = rewrite((ROOT / "docs" / document).read_text("utf-8"), "docs", f"methods/{name}.md")
    tables = []
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        head, line, *rows = table.splitlines()
        if rows := [row for row in rows if f"`{name}`" in row.split("|")[1]]:
            tables.append("\n".join([head, line, *rows]))
    return "\n\n".join(tables)
