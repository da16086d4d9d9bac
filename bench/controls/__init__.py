"""Relays to compare the proxy with: the least a relay can cost, and what one usually costs.

Each is a process of its own, started by `xoauth2-bench cost`.
"""
