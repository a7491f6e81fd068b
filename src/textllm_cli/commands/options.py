"""Options that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON: results to stdout, problems to stderr.")]
ConversationId = Annotated[
    str | None, typer.Option("--conversation", "-c", metavar="ID", help="Go on with this conversation.")
]
Continue = Annotated[bool, typer.Option("--continue", help="Go on with the latest conversation.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The model that answers.")]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", metavar="NAME", help="One of the system prompts.")]
User = Annotated[str, typer.Option("--user", metavar="ID", help="On whose behalf.")]
Raw = Annotated[bool, typer.Option("--raw", help="Let control sequences of the model's text reach the terminal.")]


def only_one(conversation: str | None, latest: bool) -> None:
    """Refuse `--conversation` together with `--continue`."""
    if conversation is not None and latest:
        raise typer.BadParameter("give either --conversation or --continue, not both")
