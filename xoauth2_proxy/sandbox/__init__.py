"""A stand-in mail provider: SMTP with XOAUTH2 that verifies really signed tokens, on loopback.

It keeps what it accepts, counts what happens, has the limits and the words of real providers where
that is asked for, and does on request what providers do wrong.
"""
