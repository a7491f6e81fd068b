"""`/files`."""

from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

from litestar import Request, post
from litestar import delete as delete_
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.errors import InvalidRequestError, StoredFileNotFoundError
from textllm_core.fields import FileKey, HasMore, Listed
from textllm_core.file_links import FileView
from textllm_core.file_names import Folder
from textllm_core.files import MAX_LISTED
from textllm_core.records.files import StoredFile
from textllm_core.tenancy import Caller
from textllm_http.admission import rate_limit_headers
from textllm_http.auth import any_caller, any_caller_or_link, caller_of
from textllm_http.download import response_of
from textllm_http.fields import After, ForUser, Limit, OfUser
from textllm_http.links import absolute
from textllm_http.multipart import MultipartBody
from textllm_http.openapi_downloads import DOWNLOAD_ANSWERS
from textllm_http.openapi_examples import FILE_KEY, FILE_VIEW
from textllm_http.openapi_shapes import FILE, LIMITED, Operation, form, json_answer
from textllm_http.reading import reading
from textllm_http.requests import QueryString, given
from textllm_http.responses import json_response
from textllm_http.services import services_of

_CONTENT: Final = "/content"


class UploadForm(Struct, frozen=True):
    """What a form says of its file."""

    user_id: ForUser | None = None
    folder: Annotated[Literal["uploads"], Meta(description="Which kind of files.")] = "uploads"


class FilesQuery(Struct, frozen=True):
    """Which files: of a user, or of all that the caller acts for."""

    user_id: OfUser | UnsetType = UNSET
    folder: Annotated[Folder, Meta(description="Which kind of files.")] = "uploads"
    limit: Annotated[Limit, Meta(ge=1, le=MAX_LISTED)] = 100
    after: After | UnsetType = UNSET


class LinkQuery(Struct, frozen=True):
    """What makes an address a link; without any of it the caller's own rights count."""

    tenant: Annotated[str | UnsetType, Meta(description="Of a signed link: whose file it is.")] = UNSET
    expires: (
        Annotated[int, Meta(description="Of a signed link: when it ends, in seconds since 1970.", ge=0, le=2**53)]
        | UnsetType
    ) = UNSET
    signature: Annotated[str | UnsetType, Meta(description="Of a signed link: what makes it valid.")] = UNSET


class FileList(Struct, frozen=True):
    """Files of a folder."""

    data: Listed[FileView]
    has_more: HasMore


class FileDeletion(Struct, frozen=True):
    """A file that is deleted."""

    key: FileKey
    success: Annotated[Literal[True], Meta(description="Always true.")] = True


_FORM: Final = MultipartBody(texts=UploadForm.__struct_fields__, files={"file": 1})
_FILES: Final = QueryString(FilesQuery)
_LINK: Final = QueryString(LinkQuery)


@post(
    "/files/upload",
    status_code=201,
    guards=[any_caller],
    described=Operation(
        tag="Files",
        body=form(UploadForm, required=("file",), file=FILE),
        answers={201: json_answer("The file is stored.", FileView, FILE_VIEW, *LIMITED, "Location", "X-User-ID")},
        problems=("file_too_large", "not_found", "rate_limited"),
    ),
)
async def upload(request: Request[Any, Any, Any]) -> ASGIApp:
    """Store a file."""
    services, caller = services_of(request), caller_of(request)
    textllm = services.textllm
    allowance = None
    if caller.user_id is not None:  # who asks for others says for whom in the form: then this comes after it
        allowance = await textllm.files.admit(caller, caller.user_id)
    async with _FORM.read(
        request, services.spool, max_file_bytes=services.max_file_bytes, max_text_bytes=services.max_text_bytes
    ) as form:
        user_id = caller.acts_for(form.texts.get("user_id"))
        if form.texts.get("folder", "uploads") != "uploads":
            raise InvalidRequestError.of("folder", 'must be "uploads"')
        if caller.user_id is None:
            allowance = await textllm.files.admit(caller, user_id)
        file = await textllm.files.upload(caller, form.files["file"][0], user_id=user_id, allowance=allowance)
    view = await _view(request, caller, file)
    headers = {"Location": f"/files/{file.key}", "X-User-ID": file.user_id}
    limit = {} if allowance is None else rate_limit_headers(allowance)
    return json_response(view, status_code=201, headers=headers | limit)


@reading(
    "/files",
    guards=[any_caller],
    before_request=_FILES.check,
    described=Operation(
        tag="Files",
        says="A user's, or all that the caller acts for; newest first.",
        answers={200: json_answer("A page of files.", FileList, {"data": [FILE_VIEW], "has_more": False})},
        problems=("not_found",),
    ),
)
async def list_files(request: Request[Any, Any, Any]) -> ASGIApp:
    """List files."""
    textllm = services_of(request).textllm
    caller, asked = caller_of(request), _FILES.read(request)
    page = await textllm.files.list(
        caller,
        user_id=given(asked.user_id),
        folder=asked.folder,
        limit=asked.limit,
        after=given(asked.after),
    )
    views = [await _view(request, caller, file) for file in page.files]
    return json_response(FileList(views, page.has_more))


@delete_(
    "/files/{_:path}",
    status_code=200,
    guards=[any_caller],
    described=Operation(
        path="/files/{key}",
        tag="Files",
        answers={200: json_answer("The file is gone.", FileDeletion, {"success": True, "key": FILE_KEY})},
        problems=("file_not_found",),
    ),
)
async def delete(request: Request[Any, Any, Any]) -> ASGIApp:
    """Delete a file."""
    textllm = services_of(request).textllm
    key = _key_in(request)
    await textllm.files.delete(caller_of(request), key)
    return json_response(FileDeletion(key))


@reading(
    "/files/{_:path}",
    guards=[any_caller_or_link],
    before_request=_LINK.check,
    described=(
        Operation(
            has_query=False,
            path="/files/{key}",
            tag="Files",
            answers={200: json_answer("The file.", FileView, FILE_VIEW)},
            problems=("file_not_found",),
        ),
        Operation(
            path="/files/{key}/content",
            tag="Files",
            summary="Download a file",
            says="Its owner asks with a key; a signed link, with `tenant`, `expires` and `signature`, needs none. "
            "It is always a download, of the type that its content has.",
            headers=("Range", "If-Match", "If-None-Match", "If-Range"),
            answers=DOWNLOAD_ANSWERS,
            problems=("file_not_found", "precondition_failed", "range_not_satisfiable", "service_unavailable"),
        ),
    ),
)
async def file_or_content(request: Request[Any, Any, Any]) -> ASGIApp:
    """Show a file's record, as the list has it.

    Or its bytes, for its owner and for whoever has a link to them.
    """
    textllm = services_of(request).textllm
    key, link = _key_in(request), _LINK.read(request)
    if not key.endswith(_CONTENT):
        if link != LinkQuery():  # it is for the bytes alone
            raise StoredFileNotFoundError
        caller = caller_of(request)
        view = await _view(request, caller, await textllm.files.get(caller, key))
        return json_response(view)
    key = key.removesuffix(_CONTENT)
    if link == LinkQuery():
        file = await textllm.files.get(caller_of(request), key)
    elif link.tenant is UNSET or link.expires is UNSET or link.signature is UNSET:
        raise StoredFileNotFoundError
    else:
        file = await textllm.files.link.opened(
            key, tenant_id=link.tenant, expires=link.expires, signature=link.signature
        )
    return await response_of(request, file, textllm.files.read)


def _key_in(request: Request[Any, Any, Any]) -> str:
    """What stands behind `/files/`, read as one name: clients made from OpenAPI escape its slashes, others do not."""
    path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
    return unquote(path.removeprefix("/files/"))


async def _view(request: Request[Any, Any, Any], caller: Caller, file: StoredFile) -> FileView:
    textllm = services_of(request).textllm
    return FileView.of(file, absolute(request, await textllm.files.link(caller, file)))
