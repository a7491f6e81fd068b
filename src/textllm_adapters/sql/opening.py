"""Whether a database may still be connected to: a pool that was closed would connect anew at the next call."""

from textllm_core.errors import ServiceUnavailableError


class Opening:
    """Asked before each new connection.

    Attributes:
        is_over: no connection is made any more.
    """

    is_over = False

    def check(self) -> None:
        """
        Raises:
            ServiceUnavailableError: it is over.
        """
        if self.is_over:
            raise ServiceUnavailableError.of_closed()
