"""Provides the relay to measure, running or private, and its mailboxes."""
