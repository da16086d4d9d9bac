"""The operator's side over HTTP: health, metrics, and the mailboxes for programs and people."""
