"""Runs the command line as `xoauth2-proxy` or `python -m xoauth2_proxy`."""

import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        # Here, not above: Ctrl+C may come while this is imported.
        from xoauth2_proxy import standard_streams

        standard_streams.run(_answer)
    except KeyboardInterrupt:  # before `run` has taken the signal
        os._exit(130)


def _answer() -> None:
    """Run `version` and `health` directly, and every other command through `cli`.

    `cli` declares and documents these two as well. Containers and scripts call them every few
    seconds, so here they run without importing the option parser.
    """
    match sys.argv[1:]:
        case ["version"] | ["--version"]:
            from xoauth2_proxy import __version__

            sys.stdout.write(f"xoauth2-proxy {__version__}\n")
        case ["health", *options] if options == [] or (len(options) == 2 and options[0] == "--url"):
            from xoauth2_proxy.commands import health_check

            sys.exit(health_check.run(os.environ, *options[1:]))
        case _:
            from xoauth2_proxy import cli

            cli.main()


if __name__ == "__main__":
    main()
