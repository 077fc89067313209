"""Progress bars on standard error, which may be closed, full, or not there: no reason to lose what is being made."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class Harmless:
    """A stream whose failures are nobody's: it goes on as if they had been written."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that works."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that works."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def meeting(bar: Any, met: Callable[[], object]) -> Callable[[int], None]:
    """What is told of work done: it moves the bar on, and calls ``met``."""

    def told(done: int) -> None:
        bar.update(done)
        met()

    return told


def bar(total: float | None, **how: Any) -> Any:
    """A bar of ``total`` units of work, as tqdm has it, as wide as the terminal."""
    return tqdm(total=total, file=Harmless(sys.stderr), dynamic_ncols=True, **how)
