"""`python -m bench` is `xoauth2-bench`."""

from bench.cli import main

main()
