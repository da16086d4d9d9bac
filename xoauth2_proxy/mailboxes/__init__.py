"""What an operator can do with mailboxes while the relay runs; independent of HTTP and pages."""
