"""The one exception that is meant for people, and how their words are shown to them."""

import logging


class InputError(ValueError):
    """Something that was given cannot be used. The message is one line: what is wrong and what to do about it."""


def shown(text: object) -> str:
    """Text of unknown origin, such as a file's name, made safe to show: one line, no control characters, UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def remark(text: str) -> None:
    """Say something that is no error: to the log named ``inkfill``, which the command line prints as notes."""
    logging.getLogger("inkfill").warning(shown(text))
