"""A server in the engine's place: the same calls, over its REST API."""
