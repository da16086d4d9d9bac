"""Options that take all the words that follow them, as a shell's wildcard gives them.

`--with A B` is read as `--with A --with B`, which is all that the command line's library knows.
"""

from __future__ import annotations


def repeat_option(args: list[str], option: str) -> list[str]:
    """Return the arguments with the option before each of the words that follow it.

    Its words end at the next option. Without a word it stays alone, for the library to refuse.
    """
    written: list[str] = []
    is_listing = False
    for arg, following in zip(args, [*args[1:], "--"], strict=False):
        if arg == option:
            is_listing = not following.startswith("-")
            written += [] if is_listing else [arg]
        else:
            is_listing = is_listing and not arg.startswith("-")
            written += [option, arg] if is_listing else [arg]
    return written
