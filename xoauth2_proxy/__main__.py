"""`xoauth2-proxy`, and `python -m xoauth2_proxy`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from xoauth2_proxy import __version__, standard_streams


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    standard_streams.run(_answer)


def _answer() -> None:
    """Answer the questions that containers and scripts ask every few seconds, or run the rest.

    `cli` declares these two commands and explains them; here they run without what its library
    imports to read options.
    """
    match sys.argv[1:]:
        case ["version"] | ["--version"]:
            sys.stdout.write(f"xoauth2-proxy {__version__}\n")
        case ["health", *options] if options == [] or (len(options) == 2 and options[0] == "--url"):
            from xoauth2_proxy.commands import health_check

            sys.exit(health_check.run(os.environ, *options[1:]))
        case _:
            from xoauth2_proxy import cli

            cli.main()


if __name__ == "__main__":
    main()
