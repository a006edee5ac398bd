"""Arguments that a docstring describes together, "alpha, sigma: of the kernel", as the site shows them: one by one."""

import re

import griffe

TOGETHER = re.compile(r"^( {4,})(\w+(?:, \w+)+): ((?:.*\n?)(?:\1 .*\n?)*)", re.M)


class Pairs(griffe.Extension):
    """Gives each of several names its own entry, with the description that they share."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:  # noqa: ARG002
        """Changes the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = apart(obj.docstring.value)


def apart(docstring: str) -> str:
    """A docstring without entries of several names."""
    return TOGETHER.sub(
        lambda entry: "".join(f"{entry[1]}{name}: {entry[3].rstrip()}\n" for name in entry[2].split(", ")), docstring
    )
