"""Splits the entry `a, b: text` of a docstring's section in two, because its parser expects one name."""

import re

import griffe

_NAMES = re.compile(r"^( +)(\w+(?:, \w+)+)(: .*(?:\n\1 +.*)*)", re.MULTILINE)


class SplitNames(griffe.Extension):
    def on_object(self, *, obj, **_):
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = _NAMES.sub(
                lambda match: "\n".join(f"{match[1]}{name}{match[3]}" for name in match[2].split(", ")),
                obj.docstring.value,
            )
