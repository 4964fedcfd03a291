"""Makes a page: one HTML file that opens without a network and runs no script but its own.

Texts of a run (questions, responses, reflections) are not trusted. Jinja escapes what it prints, JSON on the page cannot end a
tag, scripts only set text, and the page's Content-Security-Policy forbids other scripts and any loading.
Vega evaluates its expressions with its interpreter, so that the policy needs no 'unsafe-eval'.
"""

import base64
import functools
import hashlib
import json
from importlib import resources
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from amrsd_jax.report import charts


def render(name: str, package: str, **values: Any) -> str:
    """Returns a page as HTML, made from three files of `package`.

    Args:
      name: <name>.html.j2 is a Jinja template that extends base.html.j2; <name>.css follows base.css, and <name>.js, where
        there is one, dom.js.
      package: the package that has these files.
      values: variables of the template, besides `chart`, `json_in_html`, `number`, `share` and `duration`.
    """
    own_script = [asset(f"{name}.js", package)] if resources.files(package).joinpath(f"{name}.js").is_file() else []
    script = "\n".join([_vega(), asset("dom.js"), *own_script])
    style = "\n".join([charts.css(), asset("base.css"), asset(f"{name}.css", package)])
    loader = jinja2.FunctionLoader(lambda file: asset(file, __package__ if file == "base.html.j2" else package))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    functions = (chart, json_in_html, charts.number, charts.share, charts.duration)
    environment.globals |= {function.__name__: function for function in functions}
    return environment.get_template(f"{name}.html.j2").render(
        policy_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),
        script=Markup(script),
        **values,
    )


def chart(drawn: alt.TopLevelMixin) -> Markup:
    """Returns an element with the chart's Vega-Lite specification, which dom.js draws."""
    specification = json_in_html(charts.spec(drawn))
    return Markup('<div class="chart"><script type="application/json">{}</script></div>').format(specification)


def json_in_html(value: Any) -> Markup:
    """Returns JSON for a script element: it has no character that could open or close a tag or an entity."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def asset(name: str, package: str = __package__) -> str:
    """Returns the text of a file that is shipped as package data."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _vega() -> str:
    """Returns the JavaScript of Vega, Vega-Lite and Vega-Embed, 0.9 MB."""
    return vl_convert.javascript_bundle().replace("</script", "<\\/script")
