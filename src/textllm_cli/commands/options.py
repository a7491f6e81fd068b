"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON: results to stdout, problems to stderr.")]
ConversationId = Annotated[
    str | None,
    typer.Option(
        "--conversation",
        "-c",
        metavar="ID",
        help="Go on with this conversation; the beginning of its id will do.",
    ),
]
Continue = Annotated[bool, typer.Option("--continue", help="Go on with the latest conversation.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The model that answers.")]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", metavar="NAME", help="One of the system prompts.")]
System = Annotated[str | None, typer.Option("--system", "-s", metavar="TEXT", help="A system prompt of your own.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, metavar="N", help="How many tokens the answer may have.")
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", min=0, max=2, metavar="T", help="0 to 2: how freely it chooses its words."),
]
User = Annotated[
    str | None, typer.Option("--user", metavar="ID", help="On whose behalf; TEXTLLM_USER, or cli, unless given.")
]
Raw = Annotated[bool, typer.Option("--raw", help="Let control sequences of the model's text reach the terminal.")]
Images = Annotated[
    list[Path] | None,
    typer.Option("--image", "-i", metavar="IMAGE", exists=True, dir_okay=False, help="Ask about an image, or several."),
]


def only_one(conversation: str | None, latest: bool) -> None:
    """Refuse `--conversation` together with `--continue`."""
    if conversation is not None and latest:
        raise typer.BadParameter("give either --conversation or --continue, not both")
