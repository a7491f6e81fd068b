"""What the images and documents of turns are, and how a model is to be shown them."""

from collections.abc import Sequence
from typing import NamedTuple

from textllm_core.chat.attachments import MOST_BYTES
from textllm_core.chat.routes import Reads
from textllm_core.errors import ImageTooLargeError, UnreadableDocumentError
from textllm_core.file_tokens import FileTokens, image_tokens, pdf_tokens
from textllm_core.images import Image, inspect_image, kind_to_turn
from textllm_core.policy import ChatPolicy
from textllm_core.ports.document_reader import Document, DocumentReader, DocumentText
from textllm_core.records.parts import Detail, InputFile, InputImage, words_of
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload, in_bytes
from textllm_core.usage import estimated_tokens


class SeenImage(NamedTuple):
    """An image as the model is to see it, and what of it is not seen."""

    upload: Upload
    image: Image
    warnings: tuple[str, ...] = ()

    def part(self, *, key: str, name: str, detail: Detail = "auto", is_borrowed: bool = False) -> InputImage:
        """It as a part of a message, its bytes being under `key`."""
        return InputImage(
            key=key,
            media_type=self.image.media_type,
            size=self.upload.size,
            name=name,
            warnings=self.warnings,
            detail=detail,
            is_borrowed=is_borrowed,
        )

    def tokens(self, model: str) -> FileTokens:
        """Those that it makes for the model."""
        return image_tokens(self.image.width, self.image.height, model=model)


class SeenDocument(NamedTuple):
    """A document as the model is to see it.

    Args:
        extracted: the text that is sent in its place; None where the model reads the file itself.
        drawn: its first pages, where it has no text.
    """

    upload: Upload
    document: Document
    extracted: str | None
    drawn: Sequence[SeenImage] = ()

    def part(self, *, key: str, name: str, told_of: str | None = None, is_borrowed: bool = False) -> InputFile:
        """It as a part of a message, its bytes being under `key`.

        Args:
            told_of: the name by which its warnings are told apart from those of others.
        """
        warnings = self.document.warnings
        return InputFile(
            key=key,
            media_type=self.document.media_type,
            size=self.upload.size,
            name=name,
            extracted=self.extracted,
            pages=self.document.pages,
            warnings=warnings if told_of is None else tuple(f"{told_of}: {warning}" for warning in warnings),
            is_borrowed=is_borrowed,
        )

    def tokens(self, part: InputFile, *, model: str) -> FileTokens:
        """Those of the file, or of its text, as it is sent; those of its drawn pages are their own."""
        words = words_of(part)
        if words is not None:
            return FileTokens(len(words.encode()), estimated_tokens(words))
        return pdf_tokens(
            pages=self.document.pages or 1,
            size=part.size,
            model=model,
            text_bytes=self.document.text_bytes,
            is_text_counted=self.document.is_text_counted,
        )


async def seen_image(upload: Upload, reader: DocumentReader, owner: Owner) -> SeenImage:
    """The image in a form that models take.

    Raises:
        UnsupportedMediaTypeError, FileTooLargeError: it is none, or too large.
    """
    media_type = await kind_to_turn(upload)
    if media_type is None:
        return SeenImage(upload, await inspect_image(upload))
    picture = await reader.picture(upload, owner=owner, media_type=media_type)
    stem = upload.name.rpartition(".")[0] or upload.name
    turned = Upload.of_bytes(f"{stem}.{picture.media_type.removeprefix('image/')}", picture.content)
    return SeenImage(turned, Image(picture.media_type, picture.width, picture.height), picture.warnings)


def refuse_too_many_bytes(uploads: Sequence[Upload]) -> None:
    """
    Raises:
        ImageTooLargeError: they have more bytes than one call may have.
    """
    if sum(upload.size for upload in uploads) > MOST_BYTES:
        raise ImageTooLargeError(
            f"The images together have more than {in_bytes(MOST_BYTES)}; send fewer or smaller ones.",
            limit=MOST_BYTES,
            counts="bytes",
        )


async def seen_document(
    upload: Upload, reads: Reads, policy: ChatPolicy, reader: DocumentReader, *, owner: Owner, most_drawn: int
) -> SeenDocument:
    """The document as the model is to see it: a PDF as it is, where the model reads files; of all others the text.

    Of a PDF without text, such as a scan, the first pages are drawn.

    Args:
        most_drawn: pages.
    Raises:
        TextLLMError: it is none that can be read, as `DocumentReader` says.
    """
    try:
        return await _read(upload, reads, policy, reader, owner)
    except UnreadableDocumentError as error:
        if error.reason != "empty" or most_drawn == 0:
            raise
        return await _drawn(upload, policy, reader, owner, error, most=most_drawn)


async def _read(upload: Upload, reads: Reads, policy: ChatPolicy, reader: DocumentReader, owner: Owner) -> SeenDocument:
    if reads.files and upload.size <= MOST_BYTES:
        document = await reader.inspect(upload, owner=owner, max_pages=policy.max_document_pages)
        if document.file_type == "pdf":
            return SeenDocument(upload, document, None)
    text = await reader.read(
        upload, owner=owner, max_chars=policy.max_document_chars, max_pages=policy.max_document_pages
    )
    return SeenDocument(upload, text, text.text)


async def _drawn(
    upload: Upload,
    policy: ChatPolicy,
    reader: DocumentReader,
    owner: Owner,
    refusal: UnreadableDocumentError,
    *,
    most: int,
) -> SeenDocument:
    """The first pages of a PDF as images, and what tells of them; of other files the refusal is raised."""
    document = await reader.inspect(upload, owner=owner, max_pages=policy.max_document_pages)
    if document.file_type != "pdf" or not document.pages:
        raise refusal
    pictures = await reader.pages(upload, owner=owner, most=most)
    pages = [
        SeenImage(
            Upload.of_bytes(f"{upload.name} page {number}.jpg", picture.content),
            Image(picture.media_type, picture.width, picture.height),
        )
        for number, picture in enumerate(pictures, 1)
    ]
    sent = f"{len(pages)} of its {document.pages} pages were sent as images"
    text = f"[It has no text; {sent}.]"
    read = DocumentText(file_type="pdf", pages=document.pages, text=text, warnings=(f"no text was found: {sent}",))
    return SeenDocument(upload, read, text, pages)
