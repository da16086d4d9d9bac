"""Measures a relay process's cost per message, for the proxy and for control relays.

Everything runs on loopback. Relays take turns, so a drift of the machine affects all of them.
"""
