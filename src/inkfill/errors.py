"""The exception meant for users, and text made safe to show them."""

import html
import importlib
import logging
from typing import Any


class InputError(ValueError):
    """An input cannot be used. The message is one line: place, problem, remedy."""


def shown(text: object) -> str:
    """Text of unknown origin, such as a file name, as one line of UTF-8 without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def encodable(text: str, stream: Any) -> str:
    """Text that a stream can encode: other characters are escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def escaped(text: object) -> str:
    """Text of unknown origin for an HTML page: no markup, no control characters."""
    return html.escape("\n".join(shown(line) for line in str(text).splitlines()))


def reason(error: BaseException) -> str:
    """The message of an exception, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def remark(text: str) -> None:
    """Log a notice to the logger ``inkfill``, which the command line prints."""
    logging.getLogger("inkfill").warning(shown(text))


def needed(module: str, install: str) -> Any:
    """A module of an optional package. Raises InputError without it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"{module} is not installed: pip install {install}") from None
