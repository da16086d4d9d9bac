"""Generates the load: turns, messages, connections, and monitoring of the generator itself."""
