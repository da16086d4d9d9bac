"""Manages this process and its children: signals, event loop, open files."""
