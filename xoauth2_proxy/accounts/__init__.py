"""Holds the accounts: their passwords, limits, servers and OAuth clients."""
