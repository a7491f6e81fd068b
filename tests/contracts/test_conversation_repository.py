"""Every repository of conversations that ships keeps the port `ConversationRepository`."""

from textllm_adapters.testing import (
    ConversationRepositoryContract,
    EditedConversationsContract,
    ExpiringConversationsContract,
    ImportedConversationsContract,
    ManagedConversationsContract,
    SearchedConversationsContract,
)


class TestConversationRepositories(ConversationRepositoryContract):
    """Each, as `conftest.py` opens it."""


class TestManagedConversations(ManagedConversationsContract):
    """The same."""


class TestSearchedConversations(SearchedConversationsContract):
    """The same."""


class TestImportedConversations(ImportedConversationsContract):
    """The same."""


class TestExpiringConversations(ExpiringConversationsContract):
    """The same."""


class TestEditedConversations(EditedConversationsContract):
    """The same."""
