"""For other people's tests: a proxy and its sandbox as a process, and pytest fixtures for them."""
