"""Which provider a model, a reply or a conversation at a provider belongs to: its name stands before it."""


def qualified(provider: str, word: str) -> str:
    """The name for the books; the provider without a name keeps its own words."""
    return f"{provider}/{word}" if provider else word


def bare(provider: str, word: str) -> str:
    """What the provider itself calls it."""
    return word.removeprefix(f"{provider}/") if provider else word
