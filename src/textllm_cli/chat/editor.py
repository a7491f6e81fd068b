"""Texts that are written in an editor."""

import asyncio
import sys

import click

from textllm_core.errors import InvalidRequestError


async def edited(text: str) -> str | None:
    """A text after somebody has worked on it in the editor that EDITOR names; None where nothing was saved.

    Raises:
        InvalidRequestError: there is no such editor, or it failed; or input is piped, which the editor would read.
    """
    if not sys.stdin.isatty():
        raise InvalidRequestError("An editor needs a terminal, and the input is piped. Write the message as a line.")
    try:
        return await asyncio.to_thread(click.edit, text, extension=".md")
    except click.ClickException as error:
        raise InvalidRequestError(f"{error.format_message()}. Set EDITOR to an editor that you have.") from None
