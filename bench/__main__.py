"""`xoauth2-bench`, and `python -m bench`."""

from bench.process.ctrl_c import end_at_interrupt


def main() -> None:
    """Run the command line and end the process with its exit code."""
    end_at_interrupt()
    # Not above: imports take a moment, in which Ctrl+C must be no traceback.
    from bench.process.program import run_program

    run_program("xoauth2-bench", _run)


def _run() -> None:
    from bench import cli

    cli.main()


if __name__ == "__main__":
    main()
