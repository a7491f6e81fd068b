"""A document reader for tests of what is read: it starts as few children as it can, each a fifth of a second."""

from msgspec import json

from textllm_adapters.documents.child import outcome, task
from textllm_adapters.documents.crashes import CrashedPages
from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_adapters.documents.outcomes import Outcome
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload


class ReaderHere(ChildDocumentReader):
    """Does in this process what its child would do, but for the limits that a child sets itself.

    A PDF is read by a child all the same: how far one goes into it is told by the time that its process has had.
    """

    async def _outcome(
        self, action: str, what: str, upload: Upload, *limits: str, owner: Owner, max_bytes: int
    ) -> Outcome:
        if what == "pdf":
            return await super()._outcome(action, what, upload, *limits, owner=owner, max_bytes=max_bytes)
        content = b"".join([piece async for piece in upload.read()])
        max_chars, max_pages = map(int, limits or ("0", "0"))
        found = outcome(task(action, what, max_chars, max_pages, CrashedPages()), content)
        return json.decode(json.encode(found), type=Outcome)  # type: ignore[no-any-return]
