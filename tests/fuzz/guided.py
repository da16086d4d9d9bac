"""One target under atheris: `python -m tests.fuzz.guided NAME [libFuzzer's options] FOLDER`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["xoauth2_proxy"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, *options = sys.argv[1:]
    target = TARGETS[name]()

    def test_one_input(octets: bytes) -> None:
        target.check(octets[: target.max_bytes])

    atheris.Setup([sys.argv[0], *options], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
