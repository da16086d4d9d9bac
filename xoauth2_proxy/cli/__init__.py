"""The command line: options, exit codes, and what is said to the person who types them.

Exit codes: 0 stopped as asked, or all is well; 1 could not start, or something is not well; 2 wrong
usage or configuration; 130 interrupted.

Options are declared here with typer alone. A command imports what it needs when it runs: `--help`
must not pay for a server.
"""

from xoauth2_proxy.cli.application import main
from xoauth2_proxy.cli.options import cli

__all__ = ["cli", "main"]
