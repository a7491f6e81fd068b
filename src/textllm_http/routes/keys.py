"""`/keys`: the keys of the caller's tenant, for admins."""

from typing import Annotated, Any, Final, Literal

from litestar import Request, delete, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.api_keys import MAX_KEYS_PER_PAGE
from textllm_core.fields import Id
from textllm_core.records.api_keys import ApiKeyPage, IssuedApiKey
from textllm_core.tenancy import Role
from textllm_http.admission import rate_limit_headers
from textllm_http.auth import admin_caller, caller_of
from textllm_http.fields import After, AnyUserId, KeyName, Limit
from textllm_http.openapi_examples import API_KEY
from textllm_http.openapi_shapes import JSON, LIMITED, Content, Operation, json_answer
from textllm_http.reading import reading
from textllm_http.requests import JsonBody, QueryString, given
from textllm_http.responses import json_response
from textllm_http.services import services_of


class KeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as admins ask for it; null is the same as left out. `user_id` goes with the role `user`."""

    role: Annotated[Role, Meta(description="What it may do.")]
    user_id: Annotated[
        AnyUserId | None, Meta(description="Of the role `user`, and of no other: for whom alone it may act.")
    ] = None
    name: KeyName | None = None
    models: Annotated[list[str] | None, Meta(description="The names of the models that it may use; left out: all.")] = (
        None
    )


class KeysQuery(Struct, frozen=True):
    """Which page: `limit` keys that come behind the key `after`."""

    limit: Annotated[Limit, Meta(ge=1, le=MAX_KEYS_PER_PAGE)] = MAX_KEYS_PER_PAGE
    after: After | UnsetType = UNSET


class KeyRevocation(Struct, frozen=True):
    """A key that is revoked."""

    id: Id
    deleted: Annotated[Literal[True], Meta(description="Always true.")] = True


_BODY: Final = JsonBody(KeyRequest)
_KEYS: Final = QueryString(KeysQuery)


@post(
    "/keys",
    status_code=201,
    guards=[admin_caller],
    described=Operation(
        tag="Keys",
        says="It counts as a turn does in the rate limit of the key that asks for it.",
        body={JSON: Content(KeyRequest, {"for one user": {"role": "user", "user_id": "ada", "name": "Ada's phone"}})},
        answers={
            201: json_answer(
                "The key; its secret is in this answer and nowhere else.",
                IssuedApiKey,
                API_KEY | {"secret": "tllm_4fG7…"},
                *LIMITED,
                "Location",
            )
        },
    ),
)
async def issue(request: Request[Any, Any, Any]) -> ASGIApp:
    """Make an API key."""
    textllm = services_of(request).textllm
    asked = await _BODY.read(request, max_bytes=services_of(request).max_body_bytes)
    caller = caller_of(request)
    allowance = await textllm.files.admit(caller, None)
    issued = await textllm.administration.issue_api_key(
        caller, role=asked.role, user_id=asked.user_id, name=asked.name, models=asked.models
    )
    headers = {"Cache-Control": "no-store", "Location": f"/keys/{issued.id}"} | rate_limit_headers(allowance)
    return json_response(issued, status_code=201, headers=headers)


@reading(
    "/keys",
    before_request=_KEYS.check,
    guards=[admin_caller],
    described=Operation(
        tag="Keys",
        says="Newest first, revoked ones too; never a secret.",
        answers={200: json_answer("A page of keys.", ApiKeyPage, {"data": [API_KEY], "has_more": False})},
        problems=("not_found",),  # of the address with a slash behind it
    ),
)
async def list_(request: Request[Any, Any, Any]) -> ASGIApp:
    """List the API keys of the tenant."""
    textllm = services_of(request).textllm
    asked = _KEYS.read(request)
    page = await textllm.administration.list_api_keys(caller_of(request), limit=asked.limit, after=given(asked.after))
    return json_response(page)


@delete(
    "/keys/{key_id:str}",
    status_code=200,
    guards=[admin_caller],
    described=Operation(
        tag="Keys",
        says="Every worker refuses it within a second.",
        answers={200: json_answer("It is revoked.", KeyRevocation, {"id": API_KEY["id"], "deleted": True})},
        problems=("not_found",),
    ),
)
async def revoke(request: Request[Any, Any, Any], key_id: FromPath[str]) -> ASGIApp:
    """Revoke an API key."""
    textllm = services_of(request).textllm
    revoked = await textllm.administration.revoke_api_key(caller_of(request), key_id)
    return json_response(KeyRevocation(revoked.id))
