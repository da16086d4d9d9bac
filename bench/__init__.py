"""xoauth2-bench: measures an SMTP relay from outside, by process and port.

I7: it imports only the sandbox, the minting of mock tokens and the version from the proxy.
"""
