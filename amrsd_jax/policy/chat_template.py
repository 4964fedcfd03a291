"""Reads chat templates as texts: named ones and files, the variables that a template reads, and the day that it writes.

A template is code of strangers. It runs in the sandbox of `transformers`; `limits` bounds its time and memory.
"""

import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox

from amrsd_jax.names import nearest

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = "{% for message in messages %}{{ message.content }}\n\n{% endfor %}"
NAMED = {"chatml": CHATML, "plain": PLAIN}
DAY = "26 Jul 2024"  # the day that the published Llama 3 templates write where none is given
MEMORY = 2**30  # bytes that a template may take for a short conversation, our choice
_CLOCK = "strftime_now"
# What the renderer itself defines, so that no argument can.
_DEFINED = {"messages", "add_generation_prompt", "raise_exception", _CLOCK, *jinja2.Environment().globals}


def read_template(name: str) -> str:
    """Returns a named template, or the content of a file.

    Raises:
      ValueError: there is neither.
    """
    if name in NAMED:
        return NAMED[name]
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ValueError(f"chat_template.path = {name!r}: no readable file; {nearest(name, NAMED)}") from None


def writes_day(template: str) -> bool:
    """Returns whether a template asks for today's date."""
    return _CLOCK in template


def fix_day(template: str, day: str) -> str:
    """Returns a template that gets `day` wherever it asks for today's date, whatever the format."""
    if not writes_day(template):
        return template
    # A macro hides the renderer's function of that name. The expression keeps a newline at the template's start.
    return f"{{% macro {_CLOCK}(format) %}}{{{{ {json.dumps(day)} }}}}{{% endmacro %}}{{{{ '' }}}}{template}"


class _Generation(jinja2.ext.Extension):
    """The tag of `transformers` that marks an assistant's text."""

    tags = frozenset({"generation"})

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def arguments(template: str) -> frozenset[str]:
    """Returns the names of the arguments that a template reads.

    Raises:
      jinja2.TemplateSyntaxError: it is no template.
    """
    environment = jinja2.sandbox.SandboxedEnvironment(extensions=[_Generation, jinja2.ext.loopcontrols])
    read = jinja2.meta.find_undeclared_variables(environment.parse(template))
    return frozenset(read | ({"date_string"} if _CLOCK in read else set())) - _DEFINED


@contextlib.contextmanager
def limits(seconds: float, memory: int = MEMORY) -> Iterator[None]:
    """Bounds what a template that runs within the block may take.

    It traces the template's compiled code, as nothing else can end a loop there from within the process. Where the system tells
    the size of the process, that may grow by `memory` bytes; a template that builds a larger text raises MemoryError.

    Raises:
      TimeoutError: the block took more than `seconds` of processor time.
    """
    end, previous = time.thread_time() + seconds, sys.gettrace()

    def trace(frame, event, argument):
        if frame.f_code.co_filename != "<template>":
            return None
        if time.thread_time() > end:
            raise TimeoutError(f"chat template: a short conversation takes it more than {seconds:g} seconds")
        return trace

    before = resource.getrlimit(resource.RLIMIT_AS)
    most = _address_space() + memory
    if memory < most and (before[0] == resource.RLIM_INFINITY or most < before[0]):
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _address_space() -> int:
    """Returns the bytes of address space that the process has; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0
