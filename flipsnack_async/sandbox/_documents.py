"""What is kept of an uploaded document, which is never its bytes."""

from hashlib import sha256

import attrs

from ._search import Search

PDF, JPG, PNG = "pdf", "jpg", "png"

# Readers of PDF look for this anywhere in the first kilobyte.
_PDF_MARK, _PDF_MARK_WITHIN = b"%PDF-", 1024

# Whitespace without bounds could not be sought in a stream of which little is kept.
_PAGE, _LONGEST_PAGE = rb"/Type\s{0,32}/Page(?=\W)", len(b"/Type/Page") + 32
_TITLE, _LONGEST_TITLE = rb"/Title\s{0,32}\(([ -'*-\[\]-~]{1,200})\)", len(b"/Title()") + 232


@attrs.frozen
class Document:
    """
    What an upload looked like, judged by its content alone.

    *page_count* is at least 1, since a PDF can hide its pages by compressing
    what describes them; *title* is a PDF's own, if that is plain text.
    """

    size: int
    sha256: str
    kind: str | None
    page_count: int = 1
    title: str | None = None


class DocumentReader:
    """Takes a document in, chunk by chunk."""

    def __init__(self) -> None:
        self._size = 0
        self._digest = sha256()
        self._head = b""
        self._pages = Search(_PAGE, _LONGEST_PAGE)
        self._titles = Search(_TITLE, _LONGEST_TITLE)

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._digest.update(chunk)
        self._head += chunk[: _PDF_MARK_WITHIN - len(self._head)]
        self._pages.write(chunk)
        self._titles.write(chunk)

    def document(self) -> Document:
        """Say what it was, once it has come to its end."""
        digest, kind = self._digest.hexdigest(), _kind(self._head)
        if kind != PDF:
            return Document(self._size, digest, kind)
        # A last page that ends with the document is certain now.
        self._pages.write(b"\n")
        title = self._titles.first
        return Document(
            self._size,
            digest,
            kind,
            page_count=max(1, self._pages.count),
            title=title and title[1].decode("ascii"),
        )


def _kind(head: bytes) -> str | None:
    if _PDF_MARK in head:
        return PDF
    if head.startswith(b"\xff\xd8\xff"):
        return JPG
    return PNG if head.startswith(b"\x89PNG\r\n\x1a\n") else None
