"""Stopping a run by a signal."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether a signal (Ctrl-C, SIGTERM, a closed terminal) asked a run to stop.

    Signals are caught inside ``listening``; the run stops after the current step.
    """

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        """Whether a signal arrived."""
        return self._asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals here, where the run can save; elsewhere they end the process at once."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread can be signalled
            yield
            return
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
        numbers = [getattr(signal, name) for name in names]
        caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup
        before = [signal.signal(number, self._note) for number in caught]
        try:
            yield
        finally:
            for number, handler in zip(caught, before, strict=True):
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self._asked = True
