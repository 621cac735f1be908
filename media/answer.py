"""What we ask of a sender, written into the answer: longer packets, nothing in silence, and no
more bandwidth than recognition uses. Pure: text in, text out.

Measured on Chromium 156: `ptime` and `maxptime` 60 give 16.7 packets a second in place of 50,
`usedtx` almost none in silence, and `maxplaybackrate=16000` wideband SILK: half the cost of
decoding, and the mode that in-band FEC protects. A `maxaveragebitrate` beside them turns part
of the packets into CELT, which has no FEC: so none is asked for.
"""

import re
from dataclasses import dataclass

_OPUS = re.compile(r"a=rtpmap:(\d+) opus/48000", re.I)


@dataclass(frozen=True, slots=True)
class Asked:
    """Of Opus senders."""

    packet_ms: int = 60
    dtx: bool = True
    playback_rate: int = 16_000


def ask(sdp: str, asked: Asked) -> str:
    """An answer that asks for it, in every audio section."""
    lines: list[str] = []
    for section in re.split(r"(?m)^(?=m=)", sdp):
        lines.append(_ask_section(section, asked) if section.startswith("m=audio ") else section)
    return "".join(lines)


def _ask_section(section: str, asked: Asked) -> str:
    lines = section.splitlines()
    named = enumerate(map(_OPUS.match, lines))
    found = next(((at, opus[1]) for at, opus in named if opus is not None), None)
    if found is None:
        return section
    at, payload_type = found
    parameters = [
        "minptime=10",
        "useinbandfec=1",
        f"usedtx={int(asked.dtx)}",
        "stereo=0",
        "sprop-stereo=0",
        f"maxplaybackrate={asked.playback_rate}",
    ]
    lines.insert(at + 1, f"a=fmtp:{payload_type} {';'.join(parameters)}")
    replaced = (f"a=fmtp:{payload_type} ", "a=ptime:", "a=maxptime:")
    kept = [line for n, line in enumerate(lines) if n == at + 1 or not line.startswith(replaced)]
    kept += [f"a=ptime:{asked.packet_ms}", f"a=maxptime:{asked.packet_ms}"]
    return "\r\n".join(kept) + "\r\n"
