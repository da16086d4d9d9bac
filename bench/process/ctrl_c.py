"""Handles Ctrl+C until an event loop does. Has few imports, because it must be imported first."""

import os
import signal


def end_at_interrupt() -> None:
    """Make Ctrl+C end the process at once, with exit code 130, until another handler is set.

    Raising KeyboardInterrupt is not enough: inside a callback of the import system, or while the
    interpreter exits, Python prints a traceback instead of passing it on.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored under nohup and `&`
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
