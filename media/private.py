"""All that touches private parts of aiortc and aioice; `tests/media/test_private.py` holds
these names to the versions that `pyproject.toml` admits.

- aiortc's jitter buffer stalls for 320 ms on one lost packet (16 packets, prefetch 4) and
  its decoder needs a thread. Ours takes its place and hands every packet to a `Track`, so
  that the thread has nothing to do; statistics, RTCP reports and BYE stay aiortc's.
- aioice leaves loopback out of its host addresses and has no setting for them.
- aioice ends a peer without consent after 6 checks, up to 39 s; five keep it below 35.
"""

from collections.abc import Callable, Sequence

import aioice.ice
import ifaddr
from aiortc import RTCRtpReceiver
from aiortc.rtp import RtpPacket as AiortcPacket

from media.track import RtpPacket

CONSENT_FAILURES = 5


class _PacketTap:
    """Stands where aiortc's `JitterBuffer` stood: has its `add`."""

    def __init__(self, receive: Callable[[RtpPacket], None]) -> None:
        self._receive = receive

    def add(self, packet: AiortcPacket) -> tuple[bool, None]:
        self._receive(
            RtpPacket(
                packet.ssrc,
                packet.payload_type,
                packet.sequence_number,
                packet.timestamp,
                packet.payload,
            )
        )
        return False, None  # no picture loss to report, no frame for the decoder thread


def tap_packets(receiver: RTCRtpReceiver, receive: Callable[[RtpPacket], None]) -> None:
    """Send every decrypted packet of `receiver` to `receive` instead of its decoder."""
    if not hasattr(receiver, "_RTCRtpReceiver__jitter_buffer"):
        raise RuntimeError("this aiortc keeps its jitter buffer elsewhere")
    receiver._RTCRtpReceiver__jitter_buffer = _PacketTap(receive)


def codec_name(receiver: RTCRtpReceiver, payload_type: int) -> str | None:
    """The negotiated codec of a payload type, once the receiver has started."""
    codec = vars(receiver)["_RTCRtpReceiver__codecs"].get(payload_type)
    return None if codec is None else str(codec.name)


def gather_on(addresses: Sequence[str], *, loopback: bool) -> None:
    """Gather host candidates on `addresses`; with none given, on every interface, and on
    loopback too if `loopback`. Holds for the whole process."""

    def host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        if addresses:
            return [a for a in addresses if (use_ipv6 if ":" in a else use_ipv4)]
        found = _interface_addresses(use_ipv4, use_ipv6)
        return [*found, "127.0.0.1"] if loopback and use_ipv4 else found

    aioice.ice.get_host_addresses = host_addresses
    aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES


def _interface_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                if use_ipv4 and not ip.ip.startswith("127."):
                    found.append(ip.ip)
            elif use_ipv6 and ip.ip[0] != "::1" and ip.ip[2] == 0:
                # a scope (link-local) cannot be bound without its interface
                found.append(ip.ip[0])
    return found
