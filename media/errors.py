"""What can go wrong with a peer.

MediaError
└── RemoteMediaError    the peer sent something that cannot be used; ends that peer only
    └── BadOffer        its SDP is no offer of audio
"""


class MediaError(Exception):
    """Base of the errors of this package."""


class RemoteMediaError(MediaError):
    """The peer's fault. `code` is stable and goes on the wire."""

    retryable = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BadOffer(RemoteMediaError):
    """The offer cannot be answered."""
