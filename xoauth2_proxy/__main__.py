"""`xoauth2-proxy`, and `python -m xoauth2_proxy`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    try:
        # Not above: it takes a moment, in which Ctrl+C is to be no traceback.
        from xoauth2_proxy import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()
    sys.exit(0)


if __name__ == "__main__":
    main()
