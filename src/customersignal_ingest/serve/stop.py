"""How the process is asked to end, and how it ends in any case."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """SIGTERM and SIGINT, heard by the event loop of the running task.

    While the task is `starting`, the first cancels it: there is nothing to finish. Later the first
    sets `asked`, the second `hastened`.
    """

    def __init__(self, *, on_asked: Callable[[], None]) -> None:
        """Listen from now on; `on_asked` is called at the first signal."""
        self.asked, self.hastened = asyncio.Event(), asyncio.Event()
        self.starting = True
        self._task = asyncio.current_task()
        self._on_asked = on_asked
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Do what a signal does."""
        if self.asked.is_set():
            self.hastened.set()
            return
        self.asked.set()
        self._on_asked()
        if self.starting and self._task is not None:
            self._task.cancel()

    def over(self) -> None:
        """Leave signals unheard from now on, if it was asked to stop: who asks again must not kill what ends in order.

        A loop that closes gives signals back their deadly meaning, and the interpreter takes its time after that.
        """
        if not self.asked.is_set():
            return
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    async def pause(self, seconds: float, /) -> None:
        """Return after that time, or when hastened."""
        await asyncio.wait({asyncio.create_task(self.hastened.wait())}, timeout=seconds)


class Watchdog:
    """Ends the process when its time is up, whatever hangs. `exit_code` says what it ends with."""

    def __init__(self, *, timeout_s: float, last_words: Callable[[], None]) -> None:
        """Nothing runs yet."""
        self.exit_code = 1
        self._last_words = last_words
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True

    def start(self) -> None:
        """Let the time run."""
        self._timer.start()

    def _end(self) -> NoReturn:
        self._last_words()
        os._exit(self.exit_code)
