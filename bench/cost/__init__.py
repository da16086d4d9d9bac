"""What a relay process costs per message, for controls and for the proxy, in one sitting.

Everything runs on loopback, each relay in a process of its own that is measured by its own CPU
time; the relays take turns, so that a drift of the machine meets all of them.
"""
