"""Lets an option take all the arguments that follow it, as from a shell's wildcard.

`--with A B` is read as `--with A --with B`, the only form that the library supports.
"""

from __future__ import annotations


def repeat_option(args: list[str], option: str) -> list[str]:
    """Return the arguments with the option repeated before each word that follows it.

    Its words end at the next option. An option without a word is left for the library to refuse.
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
