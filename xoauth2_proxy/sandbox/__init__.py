"""A mail provider for tests, on loopback: SMTP with XOAUTH2, and a server that issues the tokens.

It stores what it accepts and counts what happens. Profiles give it the limits and the wording of
real providers; faults make it fail as they do.
"""
