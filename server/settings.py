"""The groups of settings: what each is, its default, and what values it takes."""

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from transcriber.language import AUTO

# What aiortc takes too, which would otherwise refuse every peer: no [IPv6] address, and a
# transport for TURN only.
_ICE_URL = re.compile(
    r"(stuns?:[^?:/\s]+(:[0-9]{1,5})?|turns?:[^?:/\s]+(:[0-9]{1,5})?(\?transport=(udp|tcp))?)"
)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


_SECRET_BYTES = 32
# To a provider on this machine there is no line to listen on.
_JWKS_URL = re.compile(r"https://[^/\s]+|http://(localhost|127\.0\.0\.1|\[::1\])[:/]")


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Group):
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of what is logged."
    )
    tls: str = Field(
        "",
        description="`auto`: HTTPS with a certificate of this server's own making, for a local "
        "network; `CERT,KEY`: with these two files, read again when they change. Unset: HTTP. "
        "The same as `--tls`.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Comma-separated addresses and networks of proxies, whose `X-Forwarded-For`, "
        "`-Proto` and `-Host` are believed.",
    )
    allowed_origins: tuple[str, ...] = Field(
        (),
        description="Comma-separated sites, besides this one, whose pages may open a socket to a "
        "room: `https://intranet.example.org`.",
    )
    embedded_by: tuple[str, ...] = Field(
        (),
        description="Comma-separated sites that may show the pages in a frame. Unset: none.",
    )

    @field_validator("trusted_proxies", "allowed_origins", "embedded_by", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return comma_separated(value)

    @field_validator("tls")
    @classmethod
    def _auto_or_two_files(cls, tls: str) -> str:
        files = [part.strip() for part in tls.split(",")]
        if tls not in ("", "auto") and (len(files) != 2 or not all(files)):
            raise ValueError("is auto, or two files as CERT,KEY")
        return tls

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(network, strict=False)) for network in networks)

    @field_validator("allowed_origins", "embedded_by")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("a site is a scheme and a host, as https://example.org is")
        return tuple(origin.lower() for origin in origins)

    # An empty one would listen on every interface.
    @field_validator("host")
    @classmethod
    def _not_empty(cls, host: str) -> str:
        return given(host)

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


class IceServerSetting(Group):
    urls: tuple[str, ...] = Field(min_length=1)
    username: str | None = None
    credential: str | None = None

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _with_scheme_and_host(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not _ICE_URL.fullmatch(url):
                raise ValueError(
                    "an ICE server begins with stun:, stuns:, turn: or turns: and names a host, "
                    "as stun:stun.example.org:3478 does"
                )
        return urls


class MediaSettings(Group):
    host_addresses: tuple[str, ...] = Field(
        (),
        description="Comma-separated addresses to gather ICE candidates on. Unset: every "
        "interface, and loopback too while the server listens on loopback.",
    )
    ice_servers: tuple[IceServerSetting, ...] = Field(
        (),
        description="STUN and TURN servers for browsers and for the server itself, as JSON: "
        '`[{"urls":"stun:stun.example.org"}]`.',
    )
    packet_ms: Literal[20, 40, 60] = Field(
        60, description="Length of packets that senders are asked for; longer ones cost less."
    )
    dtx: bool = Field(True, description="Ask senders to send nothing in silence.")
    playback_rate: Literal[8000, 12000, 16000, 24000, 48000] = Field(
        16_000, description="Highest rate that senders are asked for; recognition uses 16 kHz."
    )
    silent_level: int = Field(
        70,
        ge=1,
        le=128,
        description="Packets whose audio level header says this many dB below overload, or "
        "more, are silence and not decoded; 128 decodes all.",
    )
    turn_secret: str = Field(
        "",
        description="The secret shared with coturn (`use-auth-secret`): every participant gets "
        "credentials of their own that expire.",
    )
    turn_ttl_s: int = Field(
        86_400, ge=60, description="How long the credentials made from it hold, in seconds."
    )

    allowed_networks: tuple[str, ...] = Field(
        (),
        description="Comma-separated networks to which audio is negotiated, and no other. Unset: "
        "all that is public, and those private ranges in which this server has an address.",
    )

    @field_validator("host_addresses", "allowed_networks", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return comma_separated(value)

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(network, strict=False)) for network in networks)

    @field_validator("host_addresses")
    @classmethod
    def _ip_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_address(address)) for address in addresses)

    @field_validator("ice_servers", mode="before")
    @classmethod
    def _json_list(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            servers = json.loads(value or "[]")
        except ValueError:
            raise ValueError("is not JSON") from None
        if not isinstance(servers, list):
            raise ValueError("is not a JSON list")
        return servers


class WhisperSettings(Group):
    short_context: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Encode only as much as a window has, not 30 s: many times cheaper on a "
        "processor, and less accurate with models that were not trained for it; `auto`: as the "
        "model declares. `python -m transcriber calibrate` measures both.",
    )
    short_context_min_s: float = Field(
        8.0, ge=1, le=30, description="Least context then, in seconds, unless the model says."
    )


class TranscriberSettings(Group):
    engine: Literal["auto", "whisperx", "whisper", "pocketsphinx", "scripted"] = Field(
        "auto",
        description="`auto`: WhisperX where a GPU and the extra are, else Whisper where its "
        "model is here or can be fetched, else pocketsphinx (English, needs no download); "
        "`scripted` is for tests: its words follow the clock.",
    )
    model: str = Field(
        "",
        description="Whisper's model: a name such as `small`, `owner/name` on the hub, or a "
        "folder. Unset: `large-v3-turbo` on a GPU, `base` on a processor.",
    )
    auto_download: bool = Field(True, description="Fetch a model that is not here.")
    language: str = Field(
        "en", description="Language of a speaker who names none; `auto` detects it."
    )
    vad: Literal["silero", "energy"] = Field(
        "silero", description="What tells speech from noise: a small model, or loudness alone."
    )
    socket: str = Field(
        "",
        description="Socket of an engine that several servers share (`python -m transcriber "
        "serve --socket ...`). Unset: an engine of this server's own.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where Whisper runs.")
    compute_type: str = Field(
        "auto", description="CTranslate2's type; `auto`: float16 on a GPU, else int8."
    )
    threads: int = Field(
        0, ge=0, description="Processor threads of Whisper; 0: all processors but one."
    )
    beams: int = Field(5, ge=1, le=10, description="Beams for finals; interims take one.")
    batch: int = Field(
        0, ge=0, le=256, description="Most windows in a batch; 0: as the engine sees fit."
    )
    diarize: bool = Field(
        False,
        description="Tell apart several people at one microphone (WhisperX; its models ask for "
        "an account of the hub).",
    )
    whisper: WhisperSettings = WhisperSettings()

    @field_validator("language")
    @classmethod
    def _language_tag(cls, language: str) -> str:
        if language != AUTO and not _LANGUAGE.fullmatch(language):
            raise ValueError("a language is a tag such as en or pt-BR, or auto")
        return language


class RoomSettings(Group):
    linger_s: float = Field(
        60.0, ge=0, description="How long a room lives on after its last participant left."
    )
    idle_s: float = Field(
        43_200.0,
        ge=60,
        description="A room in which nobody spoke or came for so long ends, whoever is in it; "
        "a call's ends with the call.",
    )
    glossary: dict[str, str] = Field(
        {},
        description="Names and words that are likely, by room, as JSON; `*` is every other room: "
        '`{"standup":"Nextcloud, Janus"}`. Whisper is told them.',
    )
    languages: dict[str, tuple[str, ...]] = Field(
        {},
        description="Languages among which to detect, by room, as JSON; `*` is every other room: "
        '`{"*":["en","fr"]}`. Unset: all that the engine knows.',
    )

    @field_validator("glossary", "languages", mode="before")
    @classmethod
    def _json_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            given = json.loads(value or "{}")
        except ValueError:
            raise ValueError("is not JSON") from None
        if not isinstance(given, dict):
            raise ValueError("is not a JSON object")
        return given

    def glossary_of(self, room: str) -> str:
        return self.glossary.get(room, self.glossary.get("*", ""))

    def languages_of(self, room: str, known: tuple[str, ...]) -> tuple[str, ...]:
        """Of those that the engine knows."""
        allowed = self.languages.get(room, self.languages.get("*", ()))
        return tuple(language for language in allowed if language in known) or known


class AdmissionSettings(Group):
    max_speakers: int = Field(
        0, ge=0, description="Most speakers at a time; 0 lets the four below decide."
    )
    max_loop_lag_ms: float = Field(
        100.0, gt=0, description="No speaker is admitted after a second with a longer stall."
    )
    max_cpu: float = Field(
        0.85,
        ge=0,
        le=1,
        description="Nor while the server uses more of one core; 0: however much it uses.",
    )
    max_memory: float = Field(
        0.8, gt=0, le=1, description="Nor beyond this share of the cgroup's or machine's memory."
    )
    max_files: float = Field(
        0.9, gt=0, le=1, description="Nor beyond this share of the files it may open (`ulimit -n`)."
    )


class AuthSettings(Group):
    secret: str = Field(
        "",
        description="The secret by which join tokens are signed, of 32 characters or more. Unset, "
        "and no `AUTH__JWKS_URL`: rooms are open, and only on loopback.",
    )
    jwks_url: str = Field(
        "",
        description="Where an identity provider has its keys (JWKS): its RS256 and EdDSA tokens "
        "are join tokens, too.",
    )
    audience: str = Field(
        "roomscribe", description="For whom such a provider's tokens are made out (`aud`)."
    )
    issuer: str = Field(
        "", description="Who makes them out (`iss`). Unset: whoever has a key there."
    )
    open_to_everyone: bool = Field(
        False,
        description="Let everyone in without a token, also on other addresses than loopback; the "
        "same as `--open-to-everyone`.",
    )

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: str) -> str:
        # RFC 7518 3.2: as many bits as the digest has
        if secret and len(secret.encode()) < _SECRET_BYTES:
            raise ValueError(
                f"has fewer than {_SECRET_BYTES} characters; make one with `openssl rand -hex 32`"
            )
        return secret

    @field_validator("jwks_url")
    @classmethod
    def _https(cls, url: str) -> str:
        if url and not _JWKS_URL.match(url):
            raise ValueError("is an address that begins with https://")
        return url

    @property
    def is_set(self) -> bool:
        return bool(self.secret or self.jwks_url)


class LimitSettings(Group):
    """0 lifts a limit that is a number of people or things."""

    joins_per_minute: int = Field(
        120, ge=0, description="Joins from one address within a minute; 0: any number."
    )
    participants_per_room: int = Field(
        200, ge=0, description="Most participants of a room; 0: any number."
    )
    rooms: int = Field(500, ge=0, description="Most rooms at a time; 0: any number.")
    peers_per_address: int = Field(
        100, ge=0, description="Most speakers from one address; 0: any number."
    )
    seats_per_address: int = Field(
        100,
        ge=0,
        description="Most from one address who are in rooms or read them by Server-Sent Events; "
        "0: any number.",
    )
    reads_per_minute: int = Field(
        300,
        ge=0,
        description="Transcripts, streams of captions and returns to a place from one address "
        "within a minute; 0: any number.",
    )
    offers_per_minute: int = Field(
        20, ge=0, description="Offers of one participant within a minute; 0: any number."
    )
    listeners_per_room: int = Field(
        200, ge=0, description="Most readers of a room by Server-Sent Events; 0: any number."
    )
    messages_per_s: float = Field(
        50.0, gt=0, description="Messages of a socket in a second; it is read no faster."
    )
    message_bytes: int = Field(
        65_536, ge=4096, le=65_536, description="Longest message of a socket."
    )
    sdp_bytes: int = Field(65_536, ge=1024, le=65_536, description="Longest offer.")
    sdp_lines: int = Field(1_000, ge=20, description="Most lines of an offer.")
    candidates: int = Field(100, ge=1, description="Most ICE candidates of a session.")
    channel_bytes_per_s: int = Field(
        16_384,
        ge=1,
        description="Bytes in a second that a participant may send by data channels; who sends "
        "more for long is let go.",
    )
    idle_connection_s: float = Field(
        75.0,
        ge=1,
        description="How long a connection may wait for a request, or be at telling its headers.",
    )
    body_s: float = Field(10.0, ge=0.1, description="How long the body of a request may take.")


@dataclass(frozen=True, slots=True)
class TalkSettings:
    """What Nextcloud's own app is told, under the same names."""

    lt_hpb_url: str
    lt_internal_secret: str
    nextcloud_url: str
    skip_cert_verify: bool
    app_id: str
    app_secret: str
    app_version: str


def is_ice_url(url: object) -> bool:
    """Whether it is one that a peer takes."""
    return isinstance(url, str) and _ICE_URL.fullmatch(url) is not None


def given(text: str) -> str:
    if not text:
        raise ValueError("is empty; unset it for the default")
    return text


def is_loopback(host: str) -> bool:
    """Whether a host's name can stand for this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def comma_separated(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value
