"""The sandbox's mock mailboxes and refresh tokens: constants, which cost nothing to import."""

MOCK_MAILBOXES = (
    "test.account1@gmail.com",
    "test.account2@gmail.com",
    "test.account1@outlook.com",
    "test.account2@outlook.com",
)

# Followed by a mailbox, a refresh token that anyone can write into a configuration.
PLAIN_REFRESH_TOKEN = "mock-refresh-token:"  # noqa: S105 - worth nothing outside the sandbox
