"""A stand-in mail provider: SMTP with XOAUTH2 that verifies really signed tokens, on loopback.

It stores what it accepts and counts what happens. Profiles give it the limits and the words of
real providers; faults make it fail as providers do.
"""
