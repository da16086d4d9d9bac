"""`python -m xoauth2_proxy`."""

from xoauth2_proxy.cli import main

if __name__ == "__main__":
    main()
