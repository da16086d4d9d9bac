"""Relays to compare the proxy with: one of minimal cost and one of usual cost.

`xoauth2-bench cost` starts each in its own process.
"""
