"""Ctrl-C and SIGTERM end a run between two steps, so that it can be saved and resumed."""

import signal
import threading
from types import FrameType, TracebackType


class TrainingInterrupted(Exception):
    """A signal ended the run; `checkpoint` is where it can be resumed from, or None where none is kept."""

    def __init__(self, signal_number: int, checkpoint: str | None) -> None:
        self.signal_number = signal_number
        self.checkpoint = checkpoint
        where = f"resume from {checkpoint}" if checkpoint else "no checkpoint was asked for, so nothing was kept"
        super().__init__(f"training stopped by {signal.Signals(signal_number).name}; {where}.")


class SignalCatcher:
    """While entered, the first SIGINT or SIGTERM is only noted; a second one acts as usual.

    Signals can be caught in the main thread alone; elsewhere this does nothing.
    """

    caught: int | None = None

    def __enter__(self) -> "SignalCatcher":
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.caught = number
        self.restore()

    def restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()
