"""Several processes that are one relay: a parent, and workers that share its port.

The parent opens the port, answers for health and metrics, runs the sandbox and starts workers
again that ended; mail passes through workers only. What they share of a provider is kept by
`upstream.slots`.
"""
