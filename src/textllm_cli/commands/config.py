"""`textllm config`: the settings in force."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import invocation_of
from textllm_cli.render import outline, reporting
from textllm_core.records.models import ProviderFound

_Offline = Annotated[bool, typer.Option("--offline", help="Ask no provider.")]

_OF_THIS_COMPUTER: Final = (
    "these are the settings of this computer; no provider was asked. Those of the server are checked where it runs: "
    "`textllm config check` there, without --server and TEXTLLM_SERVER."
)

app = typer.Typer(no_args_is_help=True, help="Show or check the settings.")


@app.command()
def show(context: typer.Context, as_json: options.Json = False) -> None:
    """Show the values in force; no secret is among them.

    Example: textllm config show --json
    """
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        settings = invocation.settings(is_personal=False)
        values = interruptibly(invocation.engine(settings).config_in_force(settings))
        screen.record({"config": values}, outline(values))


@app.command()
def check(context: typer.Context, offline: _Offline = False, as_json: options.Json = False) -> None:
    """Check all settings at once, and list everything that is wrong with them. Ask each provider once how it is.

    It is asked for its list of models, which costs nothing. A server's own settings are checked where it runs, and
    not by --server.

    Example: textllm --config mine.yaml config check
    """
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        settings, wiring = invocation.settings(is_personal=False), invocation.load_wiring()
        notices: Sequence[str] = ()
        found: Sequence[ProviderFound] = ()
        tools: Sequence[str] = ()
        if settings.server is not None:  # the model and the storage are the server's
            notices = (_OF_THIS_COMPUTER,)
        else:
            wiring.check(settings)
            notices, tools = wiring.notices(settings), wiring.allowed_tools(settings)
            found = () if offline else interruptibly(wiring.ask_providers(settings))
        for notice in notices:
            screen.warn(notice)
        for provider in found:
            for note in provider.notes if not provider.is_well else ():
                screen.warn(f"{provider.name}: {note}")
        asked = {"providers": found} if found else {}
        lines = [f"{provider.name}: {_said(provider)}" for provider in found if provider.is_well]
        told = {"allowed_tools": tools} if tools else {}
        text = "\n".join([*lines, *tools, "The settings can be used."])
        screen.record({"ok": True, "notices": notices, **asked, **told}, text)


def _said(provider: ProviderFound) -> str:
    contexts = ", ".join(f"{model} with {tokens} tokens of context" for model, tokens in provider.contexts.items())
    return contexts or " ".join(provider.notes) or "it answers, and has the models that are named."
