"""`textllm chat`: a conversation at the terminal."""

import typer

from textllm_cli.chat import opening
from textllm_cli.commands import options
from textllm_cli.invocation import invocation_of
from textllm_cli.render import reporting
from textllm_cli.speaking import Speaker
from textllm_core.records.messages import TurnOptions


def chat(
    context: typer.Context,
    conversation: options.ConversationId = None,
    latest: options.Continue = False,
    system: options.System = None,
    model: options.Model = None,
    prompt: options.Prompt = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    raw: options.Raw = False,
    as_json: options.Json = False,
    user: options.User = None,
) -> None:
    """Talk, line by line; /help shows what else there is.

    Example: textllm chat --continue
    """
    options.only_one(conversation, latest)
    if system is not None and prompt is not None:
        raise typer.BadParameter("give either --system or --prompt, not both")
    chosen = TurnOptions(
        model=model, prompt=prompt, instructions=system, max_output_tokens=max_tokens, temperature=temperature
    )
    invocation = invocation_of(context)
    with reporting(as_json=as_json, raw=raw) as screen:
        settings = invocation.settings()
        if settings.server is None:
            for notice in invocation.load_wiring().notices(settings):
                screen.say(notice)
        engine = invocation.engine(settings)
        speaker = Speaker(invocation.user_id(user), conversation, latest, chosen)
        opening.chat(
            lambda: engine.open_textllm(settings, model_progress=screen.model_progress, grace_s=0),
            speaker,
            screen,
            settings,
            raw=raw,
        )
