"""Runs the command line as `xoauth2-bench` or `python -m bench`."""

import os


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        # Imported here because Ctrl+C may arrive during the import.
        from bench.process.ctrl_c import end_at_interrupt

        end_at_interrupt()
        from bench.process.program import run_program

        run_program("xoauth2-bench", _run)
    except KeyboardInterrupt:  # before `end_at_interrupt` has taken the signal
        os._exit(130)


def _run() -> None:
    from bench import cli

    cli.main()


if __name__ == "__main__":
    main()
