"""Conversations in memory."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec import UNSET
from msgspec.structs import replace

from textllm_adapters.memory.store import KeptConversation, KeptFile, Key, MemoryStore
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError, ForbiddenError
from textllm_core.records.conversations import (
    BegunConversation,
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationState,
)
from textllm_core.records.edits import ConversationEdit
from textllm_core.records.messages import Message
from textllm_core.records.parts import file_keys
from textllm_core.rules.searching import has_phrase, phrases_of, words_of
from textllm_core.usage import LedgerEntry


@dataclass(frozen=True, slots=True)
class MemoryConversationRepository:
    """A `ConversationRepository` over a store in memory."""

    store: MemoryStore

    async def get(
        self, tenant_id: str, conversation_id: str, *, user_id: str | None = None, include_deleted: bool = False
    ) -> Conversation | None:
        kept = self._kept(tenant_id, conversation_id, include_deleted=include_deleted)
        return None if kept is None or user_id not in (None, kept.conversation.user_id) else kept.conversation

    async def list(
        self, tenant_id: str, wanted: ConversationFilter, *, limit: int, offset: int
    ) -> tuple[Sequence[Conversation], int]:
        of_tenant = (kept for key, kept in self.store.conversations.items() if key[0] == tenant_id)
        wanted_ones = (
            kept.conversation
            for kept in of_tenant
            if kept.expires_at is None and _is_wanted(kept.conversation, wanted) and _is_said(kept, wanted)
        )
        found = sorted(wanted_ones, key=_newest_last, reverse=True)
        return found[offset : offset + limit], len(found)

    async def count(self, tenant_id: str, user_id: str, *, at_most: int) -> int:
        kept = self.store.conversations.items()
        return min(at_most, sum(key[:2] == (tenant_id, user_id) and each.expires_at is None for key, each in kept))

    async def latest(self, tenant_id: str, user_id: str) -> Conversation | None:
        everything = len(self.store.conversations)
        found, _ = await self.list(tenant_id, ConversationFilter(user_id=user_id), limit=everything, offset=0)
        return next((each for each in found if each.message_count), None)

    async def state(
        self, tenant_id: str, conversation_id: str, *, user_id: str | None = None
    ) -> ConversationState | None:
        kept = self._kept(tenant_id, conversation_id)
        if kept is None or user_id not in (None, kept.conversation.user_id):
            return None
        return kept.state

    async def last_messages(
        self, tenant_id: str, user_id: str, conversation_id: str, *, limit: int | None
    ) -> Sequence[Message]:
        messages = self._messages((tenant_id, user_id, conversation_id))
        return messages if limit is None else messages[max(0, len(messages) - limit) :]

    async def messages(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        newest_first: bool,
        after: str | None,
        limit: int,
    ) -> Sequence[Message] | None:
        messages = self._messages((tenant_id, user_id, conversation_id))
        ordered = messages[::-1] if newest_first else messages
        ids = [message.id for message in ordered]
        if after is None:
            return ordered[:limit]
        return ordered[ids.index(after) + 1 :][:limit] if after in ids else None

    async def add(
        self,
        tenant_id: str,
        conversation: Conversation,
        *,
        keeps_messages: bool,
        at_most: int | None = None,
        expires_at: datetime | None = None,
    ) -> Conversation:
        if at_most is not None and await self.count(tenant_id, conversation.user_id, at_most=at_most) >= at_most:
            raise ForbiddenError.of_full_list(at_most)
        changes = ConversationChanges(title=conversation.title, tags=conversation.tags, metadata=conversation.metadata)
        kept = KeptConversation(_changed(conversation, changes), keeps_messages=keeps_messages, expires_at=expires_at)
        self.store.conversations[tenant_id, conversation.user_id, conversation.id] = kept
        return kept.conversation

    async def add_imported(
        self,
        tenant_id: str,
        conversation: Conversation,
        messages: Sequence[Message],
        *,
        context_tokens: int,
        at_most: int | None,
        expires_at: datetime | None = None,
    ) -> Conversation | None:
        of_books = {(entry.tenant_id, entry.conversation_id) for entry in self.store.entries.values()}
        if self._kept(tenant_id, conversation.id, include_deleted=True) or (tenant_id, conversation.id) in of_books:
            return None
        await self.add(tenant_id, conversation, keeps_messages=True, at_most=at_most, expires_at=expires_at)
        key = tenant_id, conversation.user_id, conversation.id
        summary = None if conversation.summary is None else _without_nul(conversation.summary)
        kept = replace(
            self.store.conversations[key],
            messages=tuple(messages),
            context_tokens=context_tokens,
            imported_turns=conversation.message_count,
            open_calls=messages[-1].open_calls if messages else None,
        )
        return self._write(key, kept, replace(kept.conversation, summary=summary))

    async def messages_of(
        self, tenant_id: str, user_id: str, conversation_id: str, message_ids: Collection[str]
    ) -> Sequence[Message]:
        messages = self._messages((tenant_id, user_id, conversation_id))
        return [message for message in messages if message.id in message_ids]

    async def edit(self, tenant_id: str, user_id: str, conversation_id: str, edit: ConversationEdit) -> None:
        key = tenant_id, user_id, conversation_id
        kept = self.store.conversations.get(key)
        if kept is None or kept.conversation.is_deleted:
            raise ConversationNotFoundError
        if kept.turn_id is not None or kept.revision != edit.revision:
            raise ConversationBusyError
        if kept.transcript_id is not None:
            self.store.to_erase(tenant_id, user_id, "transcript", kept.transcript_id, at=edit.at)
        entries = self._entries(key)
        if edit.is_loss:
            self._erase_replies(entries, at=edit.at)
            for entry in entries:  # each is erased once, however many edits follow
                of_it = entry.tenant_id, entry.user_id, entry.response_id
                self.store.entries[of_it] = replace(entry, provider_response_id=None)
        if edit.unsaid is not None:
            its = {entry.response_id for entry in entries}
            self._forget(tenant_id, user_id, its & {edit.unsaid}, edit.remembered)
        rewritten = edit.rewritten
        staying = (message for message in kept.messages if message.id != edit.removed)
        messages = [rewritten if rewritten and message.id == rewritten.id else message for message in staying]
        changed = replace(
            kept,
            messages=(*messages, *edit.added),
            transcript_id=None,
            context_tokens=edit.context_tokens,
            open_calls=edit.open_calls,
            revision=kept.revision + 1,
            imported_turns=kept.imported_turns + edit.replies,
        )
        count = kept.conversation.message_count + edit.replies
        summary = None if edit.is_loss else kept.conversation.summary
        counted = replace(kept.conversation, message_count=count, summary=summary, updated_at=edit.at)
        self._write(key, changed, counted)

    async def update(
        self, tenant_id: str, user_id: str, conversation_id: str, changes: ConversationChanges
    ) -> Conversation | None:
        key = tenant_id, user_id, conversation_id
        kept = self.store.conversations.get(key)
        if kept is None or kept.conversation.is_deleted:
            return None
        return self._write(key, kept, _changed(kept.conversation, changes))

    async def hide(self, tenant_id: str, user_id: str, conversation_id: str, *, at: datetime) -> None:
        key = tenant_id, user_id, conversation_id
        kept = self.store.conversations.get(key)
        if kept is None or kept.conversation.is_deleted:
            raise ConversationNotFoundError
        if kept.turn_id is not None:
            raise ConversationBusyError
        self._write(key, replace(kept, deleted_at=at), replace(kept.conversation, is_deleted=True))

    async def hidden(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str, str]]:
        found = sorted(
            (kept.deleted_at, tenant_id, user_id, conversation_id)
            for (tenant_id, user_id, conversation_id), kept in self.store.conversations.items()
            if kept.deleted_at is not None and kept.deleted_at < before
        )
        return [(tenant_id, user_id, conversation_id) for _, tenant_id, user_id, conversation_id in found[:limit]]

    async def begun(
        self, *, before: datetime, after: BegunConversation | None, limit: int
    ) -> Sequence[BegunConversation]:
        found = [
            BegunConversation(*key, kept.conversation.created_at, kept.conversation.updated_at)
            for key, kept in self.store.conversations.items()
            if kept.expires_at is None and kept.conversation.created_at < before
        ]
        behind = [each for each in found if after is None or (each.created_at, each.id) > (after.created_at, after.id)]
        return sorted(behind, key=lambda each: (each.created_at, each.id))[:limit]

    async def forget_expired(self, *, at: datetime, limit: int) -> int:
        held = {(k.hold.tenant_id, k.hold.user_id, k.hold.conversation_id) for k in self.store.holds.values()}
        old = [key for key, kept in self._expired(at) if kept.keeps_nothing and key not in held][:limit]
        for key in old:
            del self.store.conversations[key]
        return len(old)

    async def expired(self, *, at: datetime, limit: int) -> Sequence[tuple[str, str, str, datetime]]:
        found = [(*key, kept.conversation.updated_at) for key, kept in self._expired(at) if not kept.keeps_nothing]
        return found[:limit]

    def _expired(self, at: datetime) -> Sequence[tuple[Key, KeptConversation]]:
        """Those that have expired by then, the longest expired first."""
        old = [
            (kept.expires_at, key, kept)
            for key, kept in self.store.conversations.items()
            if kept.expires_at is not None and kept.expires_at <= at and kept.turn_id is None
        ]
        return [(key, kept) for _, key, kept in sorted(old, key=lambda each: each[:2])]

    async def expire(self, tenant_id: str, user_id: str, conversation_id: str, *, at: datetime) -> None:
        key = tenant_id, user_id, conversation_id
        kept = self.store.conversations.get(key)
        if kept is not None and kept.expires_at is not None:
            self.store.conversations[key] = replace(kept, expires_at=at)

    async def restore(self, tenant_id: str, user_id: str, conversation_id: str) -> Conversation | None:
        key = tenant_id, user_id, conversation_id
        kept = self.store.conversations.get(key)
        if kept is None:
            return None
        return self._write(key, replace(kept, deleted_at=None), replace(kept.conversation, is_deleted=False))

    async def erase(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        at: datetime,
        remembered: bytes,
        silent_since: datetime | None = None,
        hidden_before: datetime | None = None,
    ) -> Sequence[str]:
        key, store = (tenant_id, user_id, conversation_id), self.store
        kept = store.conversations.get(key)
        if kept is None:
            raise ConversationNotFoundError
        held = ((hold.tenant_id, hold.user_id, hold.conversation_id) for hold in (k.hold for k in store.holds.values()))
        speaks = silent_since is not None and kept.conversation.updated_at > silent_since
        is_shown = hidden_before is not None and (kept.deleted_at is None or kept.deleted_at >= hidden_before)
        if kept.turn_id is not None or key in held or speaks or is_shown:
            raise ConversationBusyError
        del store.conversations[key]
        entries = self._entries(key)
        self._forget(tenant_id, user_id, {entry.response_id for entry in entries}, remembered)
        self._erase_replies(entries, at=at)
        if kept.transcript_id is not None:
            store.to_erase(tenant_id, user_id, "transcript", kept.transcript_id, at=at)
        keys = {file_key for message in kept.messages for file_key in file_keys(message.content)}
        keys.update(filter(None, [kept.conversation.last_image_url]))
        for file_key in keys:
            if (file := store.files.get((tenant_id, user_id, file_key))) is not None and file.status == "ready":
                store.files[tenant_id, user_id, file_key] = KeptFile(file.file, "hidden")
        return sorted(keys)

    def _entries(self, key: Key) -> Sequence[LedgerEntry]:
        """The entries of a conversation."""
        entries = self.store.entries.values()
        return [each for each in entries if (each.tenant_id, each.user_id, each.conversation_id) == key]

    def _erase_replies(self, entries: Collection[LedgerEntry], *, at: datetime) -> None:
        for entry in entries:
            if entry.provider_response_id is not None:
                self.store.to_erase(entry.tenant_id, entry.user_id, "reply", entry.provider_response_id, at=at)

    def _forget(self, tenant_id: str, user_id: str, responses: Collection[str], remembered: bytes) -> None:
        """Let nothing be told again of these replies but `remembered`."""
        for repeat in list(self.store.repeats.values()):
            if repeat.key[0] == tenant_id and repeat.response_id in responses and repeat.replay is not None:
                replay = replace(repeat.replay, remembered=remembered)
                self.store.repeats[repeat.key] = replace(repeat, replay=replay)
        for response_id in responses:
            self.store.spoken.pop((tenant_id, user_id, response_id), None)
            self.store.ends.pop((tenant_id, user_id, response_id), None)
            self.store.replies.pop((tenant_id, user_id, response_id), None)

    def _kept(self, tenant_id: str, conversation_id: str, *, include_deleted: bool = False) -> KeptConversation | None:
        for (tenant, _, kept_id), kept in self.store.conversations.items():
            if (tenant, kept_id) == (tenant_id, conversation_id):
                return kept if include_deleted or not kept.conversation.is_deleted else None
        return None

    def _messages(self, key: Key) -> tuple[Message, ...]:
        kept = self.store.conversations.get(key)
        return () if kept is None or kept.conversation.is_deleted else kept.messages

    def _write(self, key: Key, kept: KeptConversation, conversation: Conversation) -> Conversation:
        self.store.conversations[key] = replace(kept, conversation=conversation)
        return conversation


def _newest_last(conversation: Conversation) -> tuple[datetime, str]:
    return conversation.updated_at, conversation.id


def _is_wanted(conversation: Conversation, wanted: ConversationFilter) -> bool:
    return (
        wanted.user_id in (None, conversation.user_id)
        and (wanted.include_deleted or not conversation.is_deleted)
        and (wanted.tag is None or wanted.tag in conversation.tags)
        and (wanted.q is None or wanted.q.lower() in (conversation.title or "").lower())
    )


def _is_said(kept: KeptConversation, wanted: ConversationFilter) -> bool:
    if wanted.search is None:
        return True
    phrases = phrases_of(wanted.search)
    said = (words_of(message.text) for message in kept.messages)
    return any(all(has_phrase(words, phrase) for phrase in phrases) for words in said)


def _changed(conversation: Conversation, changes: ConversationChanges) -> Conversation:
    """As SQL keeps it: without NUL."""
    if changes.title is not UNSET:
        conversation = replace(conversation, title=_without_nul(changes.title) if changes.title else None)
    if changes.tags is not UNSET:
        conversation = replace(conversation, tags=tuple(map(_without_nul, changes.tags or ())))
    if changes.metadata is not UNSET:
        pairs = (changes.metadata or {}).items()
        conversation = replace(conversation, metadata={_without_nul(key): _without_nul(text) for key, text in pairs})
    return conversation


def _without_nul(text: str) -> str:
    return text.replace("\0", "")
