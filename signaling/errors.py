"""What can go wrong with who asks for something.

SignalingError
├── BadMessage    a message is not valid; counted, and the session goes on
└── Refused       what was asked for is not given; says why, in words for a person
"""


class SignalingError(Exception):
    """Base of the errors of this package. `code` is stable and goes on the wire."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


class BadMessage(SignalingError):
    def __init__(self, message: str) -> None:
        super().__init__("bad_message", message, retryable=True)


class Refused(SignalingError):
    """With the HTTP status that fits it."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        status: int = 400,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code, message, retryable=retryable)
        self.status = status
        self.retry_after_s = retry_after_s
