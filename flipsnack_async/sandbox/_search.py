"""A pattern sought in a stream, of which only the last few bytes are kept."""

import re


class Search:
    """
    Finds *pattern*, of at most *longest* bytes, however the stream is cut.

    The pattern must consume or demand the byte that ends it, so that a match at
    the end of what has come so far is not taken before it is certain.
    """

    def __init__(self, pattern: bytes, longest: int) -> None:
        self._pattern = re.compile(pattern)
        self._longest = longest
        self._rest = b""
        self.count = 0
        self.first: re.Match[bytes] | None = None

    def write(self, chunk: bytes) -> None:
        window = self._rest + chunk
        end = 0
        for match in self._pattern.finditer(window):
            self.count += 1
            self.first = self.first or match
            end = match.end()
        self._rest = window[max(end, len(window) - self._longest) :]
