"""Progress bars on standard error. A closed or full standard error never ends the work."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from tqdm import tqdm


class Harmless:
    """A stream that ignores failures to write."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write; failures are ignored."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush; failures are ignored."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def both(bar: Any, then: Callable[[], object]) -> Callable[[int], None]:
    """Progress callback: advances the bar, then calls ``then()``."""

    def advance(done: int) -> None:
        bar.update(done)
        then()

    return advance


Progress = Callable[[int], object]
Bar = Callable[[int, str], AbstractContextManager[Progress]]  # called with a total and a title


def no_bar(total: int, title: str) -> AbstractContextManager[Progress]:
    """A ``Bar`` that shows nothing."""
    return contextlib.nullcontext(lambda part: None)


def bar(total: float | None, **how: Any) -> Any:
    """A tqdm bar of ``total`` units, as wide as the terminal."""
    return tqdm(total=total, file=Harmless(sys.stderr), dynamic_ncols=True, **how)
