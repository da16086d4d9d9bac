"""Fixtures for the requirements: the proxy as a process."""

from tests.scenarios.conftest import start_process

__all__ = ["start_process"]
