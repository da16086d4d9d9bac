"""The refusal of an OAuth request."""

from __future__ import annotations


class OAuthError(Exception):
    """A request is refused: with an error code of the RFCs, and words for the developer."""

    def __init__(self, word: str, description: str, status: int = 400) -> None:
        super().__init__(word)
        self.word, self.description, self.status = word, description, status
