"""Compares the sandbox's messages and counters with the acknowledged messages."""
