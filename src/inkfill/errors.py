"""The one exception that is meant for people."""


class InputError(ValueError):
    """Something that was given cannot be used. The message is one line: what is wrong and what to do about it."""
