"""`/chat/image` and `/chat/file`: turns that come in forms, with files."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from litestar import Request, post
from litestar.types import ASGIApp

from textllm_core.chat.chat_with_document import MAX_DOCUMENTS, DocumentTurn
from textllm_core.chat.chat_with_image import MAX_IMAGES, ImageTurn
from textllm_core.errors import Allowance, InvalidRequestError, TextLLMError
from textllm_core.records.file_replies import DocumentReply, ImageReply
from textllm_core.records.messages import Idempotency
from textllm_core.uploads import Upload
from textllm_core.wire import to_json
from textllm_http.admission import has_key, idempotency_of
from textllm_http.auth import any_caller, caller_of
from textllm_http.multipart import MultipartBody
from textllm_http.openapi_examples import FILE_VIEW
from textllm_http.openapi_shapes import FILE, Operation, form
from textllm_http.openapi_turns import FAILURES, ON_TURNS, REPEATS, reply_or_stream
from textllm_http.services import services_of
from textllm_http.turns import TURN, TurnRequest, answer, begun

_FIELDS: Final = TurnRequest.__struct_fields__
_IMAGES: Final = MultipartBody(texts=_FIELDS, files={"images": MAX_IMAGES})
_DOCUMENTS: Final = MultipartBody(
    texts=_FIELDS, files={"file": MAX_DOCUMENTS, "images": MAX_IMAGES}, optional=["images"]
)


@dataclass(frozen=True, slots=True)
class _TurnForm:
    """A turn that has arrived with its files; `allowance` is None where it is not counted yet."""

    asked: TurnRequest
    files: Mapping[str, Sequence[Upload]]
    idempotency: Idempotency | None
    allowance: Allowance | None


@post(
    "/chat/image",
    status_code=200,
    guards=[any_caller],
    described=Operation(
        tag="Chat",
        says="As `POST /chat`, from a form.",
        headers=ON_TURNS,
        body=form(
            TurnRequest,
            required=("message", "images"),
            images={
                "type": "array",
                "items": FILE,
                "minItems": 1,
                "maxItems": MAX_IMAGES,
                "description": f"1 to {MAX_IMAGES} images: PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF.",
            },
        ),
        answers={
            200: reply_or_stream(
                ImageReply,
                {"image_urls": [FILE_VIEW["url"]], "image_count": 1},
                "The reply; or, where asked for, a stream.",
            )
        },
        problems=(*FAILURES, *REPEATS, "file_too_large"),
    ),
)
async def chat_image(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a turn with images."""
    textllm = services_of(request).textllm
    async with _arrived(request, _IMAGES) as form:
        asked = form.asked
        turn = ImageTurn(
            asked.text,
            form.files["images"],
            asked.conversation_id,
            asked.user_id,
            asked.options,
            form.idempotency,
            is_resumable=bool(asked.stream),
            allowance=form.allowance,
        )
        events = textllm.chat_with_image.stream(caller_of(request), turn)
        started = await begun(events)  # by now the files are kept, and need not wait here any longer
    return await answer(request, started, events, stream=asked.stream, stream_format=asked.stream_format)


@post(
    "/chat/file",
    status_code=200,
    guards=[any_caller],
    described=Operation(
        tag="Chat",
        says="As `POST /chat`, from a form: PDF, DOCX, PPTX, XLSX, EPUB, any text. Up to 10 documents, and up to 10 "
        "images beside them.",
        headers=ON_TURNS,
        body=form(
            TurnRequest,
            required=("message", "file"),
            file={
                "anyOf": [FILE, {"type": "array", "items": FILE, "minItems": 1, "maxItems": MAX_DOCUMENTS}],
                "description": f"The document; up to {MAX_DOCUMENTS}.",
            },
            images={
                "type": "array",
                "items": FILE,
                "maxItems": MAX_IMAGES,
                "description": f"Up to {MAX_IMAGES} images beside it.",
            },
        ),
        answers={
            200: reply_or_stream(
                DocumentReply,
                {"file_url": FILE_VIEW["url"], "file_type": ".pdf", "pages": 3},
                "The reply; or, where asked for, a stream.",
            )
        },
        problems=(*FAILURES, *REPEATS, "file_too_large", "document_too_large", "unreadable_document"),
    ),
)
async def chat_file(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a turn with a document."""
    textllm = services_of(request).textllm
    async with _arrived(request, _DOCUMENTS) as form:
        asked = form.asked
        document, *others = form.files["file"]
        turn = DocumentTurn(
            asked.text,
            document,
            asked.conversation_id,
            asked.user_id,
            asked.options,
            form.idempotency,
            is_resumable=bool(asked.stream),
            allowance=form.allowance,
            others=others,
            images=form.files["images"],
        )
        events = textllm.chat_with_document.stream(caller_of(request), turn)
        started = await begun(events)
    return await answer(request, started, events, stream=asked.stream, stream_format=asked.stream_format)


@asynccontextmanager
async def _arrived(request: Request[Any, Any, Any], shape: MultipartBody) -> AsyncIterator[_TurnForm]:
    """The turn of the form, counted once against the rate limit: before its body where it is known whose it is."""
    services, caller = services_of(request), caller_of(request)
    textllm = services.textllm
    allowance = None
    try:
        if caller.user_id is not None:
            allowance = await textllm.files.admit(caller, caller.user_id)
        async with shape.read(
            request, services.spool, max_file_bytes=services.max_file_bytes, max_text_bytes=services.max_body_bytes
        ) as form:
            asked = TURN.decode_texts(form.texts)
            if asked.tool_results:
                raise InvalidRequestError.of("tool_results", "must be sent to /chat, in a turn without files")
            idempotency = None
            if has_key(request):
                idempotency = idempotency_of(request, await _canonical(asked, form.files))
            user_id = caller.acts_for(asked.user_id)
            if caller.user_id is None and user_id is not None:
                allowance = await textllm.files.admit(caller, user_id)
            yield _TurnForm(asked, form.files, idempotency, allowance)
    except TextLLMError as refusal:
        refusal.allowance = refusal.allowance or allowance
        raise


async def _canonical(asked: TurnRequest, files: Mapping[str, Sequence[Upload]]) -> bytes:
    """The same for two forms that ask for the same."""
    digests = []
    for file in chain.from_iterable(files.values()):
        digest = hashlib.sha256()
        async for piece in file.read():
            digest.update(piece)
        digests.append((file.name, digest.hexdigest()))
    return to_json({"asked": asked, "files": digests})
