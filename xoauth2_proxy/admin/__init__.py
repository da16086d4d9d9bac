"""The admin interface over HTTP: health, metrics, and the mailboxes for programs and people."""
