"""Sends messages to providers: opens, pools and limits connections, and runs transactions."""
