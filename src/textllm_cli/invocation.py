"""One run of the command line: what was said before the command, and where the engine comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from textllm_core.errors import ConfigurationError

if TYPE_CHECKING:  # help pages need none of them
    from textllm_adapters.settings import Settings
    from textllm_core.application import Books, Conversations, Files, TextLLM

Progress = Callable[[int, int], None]


class Wiring(Protocol):
    """What commands ask of the composition root. Each raises ConfigurationError where settings do not allow it."""

    def load_settings(self, config: Path | None = None, /) -> Settings:
        """The settings in force; `config` is the file to read, None the usual places."""
        ...

    def check(self, settings: Settings, /) -> None:
        """Find out, without opening anything, whether the settings can be kept."""
        ...

    def notices(self, settings: Settings, /) -> Sequence[str]:
        """What an operator should know about settings that can be used all the same."""
        ...

    def open_textllm(
        self,
        settings: Settings,
        /,
        *,
        model_progress: Progress | None = None,
        database_patience_s: float = 0.0,
        grace_s: float | None = None,
    ) -> AbstractAsyncContextManager[TextLLM]:
        """The engine. Leaving it gives running replies `grace_s` seconds to end, and settles them.

        Args:
            database_patience_s: how long to wait for a database that does not answer yet.
            model_progress: called from any thread while a model file is fetched, with the bytes so far and in all.
        """
        ...

    def try_out(
        self, settings: Settings, /, *, model_progress: Progress | None = None, database_patience_s: float = 0.0
    ) -> AbstractAsyncContextManager[Books]:
        """As much of what `open_textllm` opens as may fail to; arguments as there."""
        ...

    def open_books(self, settings: Settings, /) -> AbstractAsyncContextManager[Books]:
        """What needs the database alone."""
        ...

    def open_files(self, settings: Settings, /) -> AbstractAsyncContextManager[Files]:
        """What needs the database and the store of files."""
        ...

    def open_conversations(self, settings: Settings, /) -> AbstractAsyncContextManager[Conversations]:
        """What manages conversations. Leaving it lets what is being erased at the provider go on for a while."""
        ...

    async def upgrade_database(self, settings: Settings, /) -> str:
        """Bring the database to the newest revision; its name."""
        ...

    async def database_revision(self, settings: Settings, /) -> tuple[str | None, str]:
        """The database's revision, None where it has no tables yet; and the newest there is."""
        ...

    async def fetch_model(self, settings: Settings, progress: Progress, /) -> Path:
        """Fetch and check the embedded model's file, unless it is there; its path."""
        ...


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options of `textllm` itself, before any command.

    Args:
        load_wiring: imports the wiring; called by commands that need it, so that help pages wait for no import.
        config: the file of settings; None is the usual places.
    """

    load_wiring: Callable[[], Wiring]
    config: Path | None

    @property
    def wiring(self) -> Wiring:
        return self.load_wiring()

    def settings(self) -> Settings:
        """The settings in force.

        Raises:
            ConfigurationError: some cannot be used; its text lists them all.
        """
        settings = self.wiring.load_settings(self.config)
        if settings.server is not None or settings.api_key is not None:
            raise ConfigurationError(
                "TEXTLLM_SERVER and TEXTLLM_API_KEY: this version's command line does not talk to a server; unset them."
            )
        return settings


def invocation_of(context: typer.Context) -> Invocation:
    """The invocation that a command belongs to."""
    invocation = context.find_object(Invocation)
    assert invocation is not None  # set by the callback of `main.app`, without which no command runs
    return invocation
