"""A mail provider for tests: SMTP with XOAUTH2 on loopback, which verifies signed tokens.

It stores what it accepts and counts what happens. Profiles give it the limits and the wording of
real providers; faults make it fail as they do.
"""
