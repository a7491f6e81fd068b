"""`/v1/files`: the files of `/files`, as OpenAI's API shows them."""

from typing import Annotated, Any, Final, Literal, get_args

from litestar import Request
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from textllm_core.errors import InvalidRequestError
from textllm_core.fields import HasMore
from textllm_core.file_names import file_id_of, key_of
from textllm_core.files import MAX_LISTED
from textllm_core.records.files import Purpose, StoredFile
from textllm_http.auth import caller_of
from textllm_http.download import response_of
from textllm_http.multipart import MultipartBody
from textllm_http.openai_door.charging import NAMES_USER, charged_user, file_key, named_user, user_in_header
from textllm_http.openai_door.declaring import door_delete, door_post, door_reading
from textllm_http.openai_door.errors import limited_headers, unserved
from textllm_http.openai_door.queries import DoorQuery
from textllm_http.openapi_downloads import DOWNLOAD_ANSWERS
from textllm_http.openapi_shapes import DOOR_LIMITED, FILE, LIMITED, Operation, form, json_answer
from textllm_http.responses import json_response
from textllm_http.services import services_of

_MOST_ASKED: Final = 10_000  # OpenAI's; a page has at most MAX_LISTED of them, and says that there are more
_PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)


class DoorFile(Struct, frozen=True, kw_only=True):
    """A file, as OpenAI's API shows it."""

    id: Annotated[str, Meta(description="Its id, which stands for its key in `/files`.")]
    object: Annotated[Literal["file"], Meta(description="Always `file`.")] = "file"
    bytes: Annotated[int, Meta(description="Its size.")]
    created_at: Annotated[int, Meta(description="When it was uploaded, in seconds since 1970.")]
    filename: Annotated[str, Meta(description="What its owner calls it.")]
    purpose: Annotated[Purpose, Meta(description="What it was uploaded for.")]
    status: Annotated[Literal["processed"], Meta(description="Always `processed`: it can be used.")] = "processed"

    @classmethod
    def of(cls, file: StoredFile) -> "DoorFile":
        return cls(
            id=file_id_of(file.key),
            bytes=file.size,
            created_at=int(file.created_at.timestamp()),
            filename=file.name,
            purpose=file.purpose,
        )


class DoorFileList(Struct, frozen=True, kw_only=True):
    """A page of files."""

    object: Annotated[Literal["list"], Meta(description="Always `list`.")] = "list"
    data: Annotated[list[DoorFile], Meta(description="The files.")]
    first_id: Annotated[str, Meta(description="The id of the first; empty where there are none.")]
    last_id: Annotated[str, Meta(description="The id of the last; empty where there are none.")]
    has_more: HasMore


class DoorFileDeletion(Struct, frozen=True, kw_only=True):
    """A file that is deleted."""

    id: Annotated[str, Meta(description="Its id.")]
    object: Annotated[Literal["file"], Meta(description="Always `file`.")] = "file"
    deleted: Annotated[Literal[True], Meta(description="Always true.")] = True


class DoorUpload(Struct, frozen=True):
    """What a form says of its file."""

    purpose: Annotated[Purpose, Meta(description="What it is for; all of these are served in the same way.")]
    safety_identifier: Annotated[str | None, Meta(description="Whose it is, where the key is nobody's.")] = None
    user: Annotated[str | None, Meta(description="The same, by its older name.")] = None


class DoorFilesQuery(Struct, frozen=True):
    """Which files."""

    purpose: Annotated[str | None, Meta(description="What they were uploaded for.")] = None
    limit: Annotated[int, Meta(description="How many at most; a page has up to 1000.", ge=1, le=_MOST_ASKED)] = (
        _MOST_ASKED
    )
    order: Annotated[Literal["asc", "desc"], Meta(description="The oldest, or the newest, first.")] = "desc"
    after: Annotated[str | None, Meta(description="The id of the last file of the page before.")] = None


_EXPIRY: Final = ("expires_after[anchor]", "expires_after[seconds]", "expires_after")
_FORM: Final = MultipartBody(texts=(*DoorUpload.__struct_fields__, *_EXPIRY), files={"file": 1}, ignores_others=True)
_FILES: Final = DoorQuery(DoorFilesQuery)
_EXAMPLE: Final = {
    "id": "file-uploads~ada~20261122_120000_5f0c1d2e_notes.pdf",
    "object": "file",
    "bytes": 10240,
    "created_at": 1795348800,
    "filename": "notes.pdf",
    "purpose": "user_data",
    "status": "processed",
}
_EXPIRES: Final = "is not served: a file stays until it is deleted"


@door_post(
    "/v1/files",
    described=Operation(
        tag="OpenAI",
        says="It can be named as `file_id` in messages, of any API here.",
        headers=(NAMES_USER,),
        body=form(DoorUpload, required=("file", "purpose"), file=FILE),
        answers={200: json_answer("The file is stored.", DoorFile, _EXAMPLE, *LIMITED, *DOOR_LIMITED)},
        problems=("file_too_large", "rate_limited"),
    ),
)
async def upload(request: Request[Any, Any, Any]) -> ASGIApp:
    """Upload a file."""
    services, caller = services_of(request), caller_of(request)
    textllm = services.textllm
    allowance = None
    if caller.user_id is not None:  # who asks for others says for whom in the form: then this comes after it
        allowance = await textllm.files.admit(caller, caller.user_id)
    async with _FORM.read(
        request, services.spool, max_file_bytes=services.max_file_bytes, max_text_bytes=services.max_text_bytes
    ) as form:
        texts = form.texts
        purpose = _purpose(texts.get("purpose"))
        unserved(texts, dict.fromkeys(_EXPIRY, _EXPIRES))
        user = charged_user(
            caller,
            safety_identifier=texts.get("safety_identifier"),
            user=texts.get("user"),
            in_header=user_in_header(request),
        )
        allowance = allowance or await textllm.files.admit(caller, user)
        file = await textllm.files.upload(
            caller, form.files["file"][0], user_id=user, allowance=allowance, purpose=purpose
        )
    return json_response(DoorFile.of(file), headers=limited_headers(allowance))


@door_reading(
    "/v1/files",
    before_request=_FILES.check,
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says="Those that were uploaded by themselves, of all users that the key acts for; those that came in a message "
        "are named in it.",
        answers={
            200: json_answer(
                "A page of files.",
                DoorFileList,
                {
                    "object": "list",
                    "data": [_EXAMPLE],
                    "first_id": _EXAMPLE["id"],
                    "last_id": _EXAMPLE["id"],
                    "has_more": False,
                },
            )
        },
    ),
)
async def listed(request: Request[Any, Any, Any]) -> ASGIApp:
    """List files."""
    asked = _FILES.read(request)
    caller = caller_of(request)
    page = await services_of(request).textllm.files.list(
        caller,
        user_id=named_user(caller, safety_identifier=None, user=None, in_header=user_in_header(request)),
        limit=min(asked.limit, MAX_LISTED),
        after=None if asked.after is None else key_of(asked.after) or asked.after,
        purpose=None if asked.purpose is None else _purpose(asked.purpose),
        oldest_first=asked.order == "asc",
    )
    files = [DoorFile.of(file) for file in page.files]
    first, last = (files[0].id, files[-1].id) if files else ("", "")
    return json_response(DoorFileList(data=files, first_id=first, last_id=last, has_more=page.has_more))


@door_reading(
    "/v1/files/{file_id:str}",
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        answers={200: json_answer("The file.", DoorFile, _EXAMPLE)},
        problems=("file_not_found",),
    ),
)
async def one(request: Request[Any, Any, Any], file_id: FromPath[str]) -> ASGIApp:
    """Tell of one file."""
    file = await services_of(request).textllm.files.get(caller_of(request), file_key(file_id))
    return json_response(DoorFile.of(file))


@door_reading(
    "/v1/files/{file_id:str}/content",
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER, "Range", "If-Match", "If-None-Match", "If-Range"),
        answers=DOWNLOAD_ANSWERS,
        problems=("file_not_found", "precondition_failed", "range_not_satisfiable", "service_unavailable"),
    ),
)
async def content(request: Request[Any, Any, Any], file_id: FromPath[str]) -> ASGIApp:
    """Download a file."""
    files = services_of(request).textllm.files
    return await response_of(request, await files.get(caller_of(request), file_key(file_id)), files.read)


@door_delete(
    "/v1/files/{file_id:str}",
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        answers={
            200: json_answer(
                "The file is gone.", DoorFileDeletion, {"id": _EXAMPLE["id"], "object": "file", "deleted": True}
            )
        },
        problems=("file_not_found",),
    ),
)
async def delete(request: Request[Any, Any, Any], file_id: FromPath[str]) -> ASGIApp:
    """Delete a file."""
    await services_of(request).textllm.files.delete(caller_of(request), file_key(file_id))
    return json_response(DoorFileDeletion(id=file_id))


def _purpose(purpose: str | None) -> Purpose:
    for known in _PURPOSES:
        if purpose == known:
            return known
    raise InvalidRequestError.of("purpose", f"must be one of {', '.join(_PURPOSES)}; nothing else is done with files")
