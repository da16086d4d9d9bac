"""What a relay process costs per message, for controls and for the proxy.

Everything runs on loopback. Relays take turns, so that a drift of the machine meets all of them.
"""
