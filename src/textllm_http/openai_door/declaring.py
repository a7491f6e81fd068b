"""How the routes of the door are declared.

Any caller may come, where a request names a user for that user alone; query parameters that nobody knows are ignored.
"""

from functools import partial
from typing import Final

from litestar import delete, post

from textllm_http.openai_door.charging import caller_at_door
from textllm_http.openai_door.queries import ANY_QUERY
from textllm_http.reading import reading

# Of a body, beside the files in it: what the largest context there is, of a million tokens, has in plain English.
MAX_TEXT_BYTES: Final = 4 * 1024 * 1024
door_reading: Final = partial(reading, guards=[caller_at_door], before_request=ANY_QUERY.check)
door_post: Final = partial(post, status_code=200, guards=[caller_at_door], before_request=ANY_QUERY.check)
door_delete: Final = partial(delete, status_code=200, guards=[caller_at_door], before_request=ANY_QUERY.check)
