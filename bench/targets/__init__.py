"""What is measured: the relay that runs, or a private one, and its mailboxes."""
