"""`textllm chat`: a conversation at the terminal."""

import typer

from textllm_cli import repl
from textllm_cli.commands import options
from textllm_cli.invocation import invocation_of
from textllm_cli.render import reporting
from textllm_cli.speaking import Speaker
from textllm_core.records.messages import TurnOptions


def chat(
    context: typer.Context,
    conversation: options.ConversationId = None,
    latest: options.Continue = False,
    model: options.Model = None,
    prompt: options.Prompt = None,
    raw: options.Raw = False,
    as_json: options.Json = False,
    user: options.User = "cli",
) -> None:
    """Talk, line by line; /help shows what else there is."""
    options.only_one(conversation, latest)
    speaker = Speaker(user, conversation, latest, TurnOptions(model=model, prompt=prompt))
    invocation = invocation_of(context)
    with reporting(as_json=as_json, raw=raw) as screen:
        settings = invocation.settings()
        wiring = invocation.wiring
        for notice in wiring.notices(settings):
            screen.say(notice)
        repl.chat(
            lambda: wiring.open_textllm(settings, model_progress=screen.model_progress, grace_s=0), speaker, screen
        )
