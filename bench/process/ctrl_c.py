"""What Ctrl+C does before an event loop takes it; imports next to nothing, to come first."""

import os
import signal


def end_at_interrupt() -> None:
    """Let Ctrl+C end the process at once, with exit code 130, until something else takes it.

    Raising KeyboardInterrupt is not good enough: inside a callback of the import system, or while
    the interpreter ends, Python prints a traceback instead of passing it on.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # which nohup and `&` ask for
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
