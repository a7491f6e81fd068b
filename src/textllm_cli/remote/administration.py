"""A server's sessions, usage and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from textllm_cli.remote.client import Client, named
from textllm_core.errors import ConfigurationError
from textllm_core.records.api_keys import ApiKey, ApiKeyPage, IssuedApiKey
from textllm_core.records.sessions import Session
from textllm_core.records.usage_reports import UsageOfConversation, UsageReport
from textllm_core.tenancy import Caller, Role

# ruff: noqa: ARG002 - on a server it is the key that says who calls

_NEWEST: Final = 100


class _Sessions(msgspec.Struct):
    data: list[Session]


class _Used(msgspec.Struct):
    data: list[UsageOfConversation]


class _Revoked(msgspec.Struct):
    id: str


class RemoteReports:
    """What was used on a server; as `ReportUsage`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __call__(self, caller: Caller, user_id: str | None, *, days: int) -> UsageReport:
        path = named("stats") if user_id is None else named("users", user_id, "stats")
        return await self._client.get(path, UsageReport, days=days)

    async def by_conversation(self, caller: Caller, user_id: str, *, days: int) -> Sequence[UsageOfConversation]:
        return (await self._client.get(named("users", user_id, "stats", "conversations"), _Used, days=days)).data


class RemoteAdministration:
    """A server's `Administration`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.report_usage = RemoteReports(client)

    async def get_session(self, caller: Caller, session_id: str) -> Session:
        return await self._client.get(named("sessions", session_id), Session)

    async def todays_session(self, caller: Caller, user_id: str) -> Session:
        return await self._client.get(named("users", user_id, "sessions"), Session)

    async def list_sessions(self, caller: Caller, user_id: str, *, days: int) -> Sequence[Session]:
        return (await self._client.get(named("users", user_id, "sessions"), _Sessions, days=days)).data

    async def end_session(self, caller: Caller, session_id: str) -> Session:
        return await self._client.call("POST", named("sessions", session_id, "end"), Session)

    async def issue_api_key(
        self,
        caller: Caller,
        *,
        role: Role,
        user_id: str | None = None,
        name: str | None = None,
        models: Sequence[str] | None = None,
    ) -> IssuedApiKey:
        _refuse_other_tenant(caller)
        asked: dict[str, object] = {"role": role, "user_id": user_id, "name": name}
        if models is not None:  # a server of the version before knows nothing of it
            asked["models"] = list(models)
        return await self._client.call("POST", named("keys"), IssuedApiKey, body=asked)

    async def list_api_keys(self, caller: Caller, *, limit: int, after: str | None = None) -> ApiKeyPage:
        _refuse_other_tenant(caller)
        return await self._client.get(named("keys"), ApiKeyPage, limit=limit, after=after)

    async def revoke_api_key(self, caller: Caller, key_id: str) -> ApiKey:
        _refuse_other_tenant(caller)
        after = None
        await self._client.call("DELETE", named("keys", key_id), _Revoked)
        while True:
            page = await self.list_api_keys(caller, limit=_NEWEST, after=after)
            for key in page.data:
                if key.id == key_id:
                    return key
            after = page.data[-1].id


def _refuse_other_tenant(caller: Caller) -> None:
    if caller.tenant_id != Caller().tenant_id:
        raise ConfigurationError("--tenant: on a server it is the key that says which tenant; leave --tenant out.")
