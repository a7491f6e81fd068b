"""The door that speaks OpenAI's API: `/v1`."""
