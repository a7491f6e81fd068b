"""One run of the command line: what was said before the command, and where the engine comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import typer

from textllm_core.errors import ConfigurationError

if TYPE_CHECKING:  # help pages need none of them
    from textllm_adapters.settings import Settings
    from textllm_cli import engine
    from textllm_cli.engine import Progress
    from textllm_core.application import Administration
    from textllm_core.records.models import ModelList, ProviderFound
    from textllm_core.records.schema import SchemaStep

USUAL_USER: Final = "cli"


class Engine(Protocol):
    """What commands ask for, in this process or on a server. Each raises ConfigurationError where settings do not
    allow it."""

    def open_textllm(
        self,
        settings: Settings,
        /,
        *,
        model_progress: Progress | None = None,
        grace_s: float | None = None,
    ) -> AbstractAsyncContextManager[engine.Talk]:
        """What talks. Leaving it gives running replies `grace_s` seconds to end, and settles them.

        Args:
            model_progress: called from any thread while a model file is fetched, with the bytes so far and in all.
        """
        ...

    def open_administration(self, settings: Settings, /) -> AbstractAsyncContextManager[engine.Administration]:
        """What needs the database alone."""
        ...

    def open_files(self, settings: Settings, /) -> AbstractAsyncContextManager[engine.Files]:
        """What needs the database and the store of files."""
        ...

    def open_conversations(self, settings: Settings, /) -> AbstractAsyncContextManager[engine.Conversations]:
        """What manages conversations. Leaving it lets what is being erased at the provider go on for a while."""
        ...

    async def config_in_force(self, settings: Settings, /) -> Mapping[str, Any]:
        """The settings of the engine, without secrets."""
        ...

    async def list_models(self, settings: Settings, /) -> ModelList:
        """The models that can be asked, with what they cost and can read."""
        ...

    async def health(self, settings: Settings, /) -> Mapping[str, Any]:
        """How the engine and its parts do, in the shape of `GET /health`; `status` is "healthy" where all is well."""
        ...


class Host(Protocol):
    """What can be done where the engine's own database is, and nowhere else. Errors are those of `Engine`."""

    def check(self, settings: Settings, /) -> None:
        """Find out, without opening anything, whether the settings can be kept."""
        ...

    async def ask_providers(self, settings: Settings, /) -> Sequence[ProviderFound]:
        """What each provider says when it is asked once how it is; nothing that costs anything."""
        ...

    def allowed_tools(self, settings: Settings, /) -> Sequence[str]:
        """Which tools on their own servers providers may use, and what a call costs."""
        ...

    def notices(self, settings: Settings, /) -> Sequence[str]:
        """What an operator should know about settings that can be used all the same."""
        ...

    def try_out(
        self, settings: Settings, /, *, model_progress: Progress | None = None, database_patience_s: float = 0.0
    ) -> AbstractAsyncContextManager[Administration]:
        """As much of what a server opens as may fail to.

        Args:
            model_progress: as `open_textllm` has it.
            database_patience_s: how long to wait for a database that does not answer yet.
        """
        ...

    def open_administration(self, settings: Settings, /) -> AbstractAsyncContextManager[Administration]:
        """What needs the database alone, the audit among it."""
        ...

    async def upgrade_database(self, settings: Settings, /) -> str:
        """Bring the database to the newest revision; its name."""
        ...

    async def database_revision(self, settings: Settings, /) -> tuple[str | None, str]:
        """The database's revision, None where it has no tables yet; and the newest there is."""
        ...

    async def database_steps(self, settings: Settings, /) -> Sequence[SchemaStep]:
        """What `upgrade_database` would do, in its order."""
        ...

    async def run_jobs(self, settings: Settings, /) -> Mapping[str, int]:
        """Do once what a server does from time to time; how much was done, by job."""
        ...

    async def fetch_model(self, settings: Settings, progress: Progress, /) -> Path:
        """Fetch and check the embedded model's file, unless it is there; its path."""
        ...


class Wiring(Host, Engine, Protocol):
    """What commands ask of the composition root."""

    def load_settings(self, config: Path | None = None, /, *, is_personal: bool = False, **arguments: Any) -> Settings:
        """The settings in force.

        Args:
            config: the file to read, None the usual places.
            is_personal: for one person in process, whom the limits of a service do not concern.
            arguments: settings that go before all others.
        """
        ...

    def open_administration(self, settings: Settings, /) -> AbstractAsyncContextManager[Administration]: ...


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options of `textllm` itself, before any command.

    Args:
        load_wiring: imports the wiring; called by commands that need it, so that help pages wait for no import.
        config: the file of settings; None is the usual places.
        server: the address of the server to ask; None: what the settings say.
    """

    load_wiring: Callable[[], Wiring]
    config: Path | None
    server: str | None = None
    _read: dict[bool, Settings] = field(default_factory=dict, init=False, repr=False)

    def settings(self, *, is_personal: bool = True) -> Settings:
        """The settings in force.

        Raises:
            ConfigurationError: some cannot be used; its text lists them all.
        """
        if is_personal not in self._read:
            arguments = {} if self.server is None else {"server": self.server}
            load = self.load_wiring().load_settings
            self._read[is_personal] = load(self.config, is_personal=is_personal, **arguments)
        return self._read[is_personal]

    def engine(self, settings: Settings) -> Engine:
        """What commands ask: the server that the settings name, or else this process."""
        if settings.server is None:
            return self.load_wiring()
        from textllm_cli.remote import wiring

        return wiring

    def host(self, command: str) -> tuple[Settings, Host]:
        """The settings as a service has them, and what can be done with its own database.

        Raises:
            ConfigurationError: a server is named, whose database is out of reach.
        """
        settings = self.settings(is_personal=False)
        if settings.server is not None:
            raise ConfigurationError(
                f"`textllm {command}` works where the server's own database is: run it there, without --server and "
                "TEXTLLM_SERVER."
            )
        return settings, self.load_wiring()

    def user_id(self, named: str | None) -> str:
        """On whose behalf: whom the command names, or else the settings."""
        return (self.settings().user or USUAL_USER) if named is None else named


def invocation_of(context: typer.Context) -> Invocation:
    """The invocation that a command belongs to."""
    invocation = context.find_object(Invocation)
    assert invocation is not None  # set by the callback of `main.app`, without which no command runs
    return invocation
