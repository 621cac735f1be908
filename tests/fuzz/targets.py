"""The one table of what is fuzzed: every parser that reads from the network."""

from tests.fuzz import doors, house, media, peers, signaling
from tests.fuzz.target import Target, plain

TARGETS: dict[str, Target] = {
    # WebRTC
    "sdp": plain(media.sdp),
    "offer": peers.offers,
    "candidate": peers.candidates,
    "stun": peers.stun,
    "mdns": peers.mdns,
    "dtls": peers.dtls,
    "sctp": peers.sctp,
    "datagram": plain(media.datagram),
    "rtp": plain(media.rtp),
    "rtcp": plain(media.rtcp),
    "opus": plain(media.opus),
    # pages, WHIP, readers of captions
    "message": plain(signaling.message),
    "websocket": house.socket_messages,
    "whip": house.requests,
    "captions": house.requests,
    # who someone is
    "token": doors.tokens,
    "keys": plain(doors.keys),
    "forwarded": plain(doors.forwarded),
    # Nextcloud Talk
    "talk_http": house.requests,
    "talk_backend": plain(signaling.talk_backend),
    # the engine's process
    "worker": plain(signaling.worker),
}
