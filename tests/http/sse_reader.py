"""A reader of server-sent events, written from the standard (WHATWG HTML, 9.2.6) and from nothing else."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """One dispatched event."""

    name: str
    data: str
    last_id: str


def read_events(stream: bytes) -> list[Received]:
    """All events of a whole stream; what follows the last blank line is dropped, as the standard says."""
    text = stream.decode().removeprefix("\ufeff")
    lines = re.split(r"\r\n|\n|\r", text)
    received: list[Received] = []
    name, data, last_id = "", "", ""
    for line in lines[:-1]:  # the last one has no end
        if line == "":
            if data != "":
                received.append(Received(name or "message", data.removesuffix("\n"), last_id))
            name, data = "", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                name = value
            case "data":
                data += value + "\n"
            case "id" if "\0" not in value:
                last_id = value
    return received
