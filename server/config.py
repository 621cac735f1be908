"""`Settings`: the only reader of the environment.

Names are nested with `__` (`SERVER__PORT`), and come from the environment first, then from
a `.env` file in the current folder. All faults are told at once.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from transcriber.engines import EngineOptions
from transcriber.language import AUTO

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# What aiortc takes too, which would otherwise refuse every peer: no [IPv6] address, and a
# transport for TURN only.
_ICE_URL = re.compile(
    r"(stuns?:[^?:/\s]+(:[0-9]{1,5})?|turns?:[^?:/\s]+(:[0-9]{1,5})?(\?transport=(udp|tcp))?)"
)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


class BadSettings(Exception):
    """`faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Group):
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of what is logged."
    )

    # An empty one would listen on every interface.
    @field_validator("host")
    @classmethod
    def _not_empty(cls, host: str) -> str:
        return _given(host)

    @property
    def is_loopback(self) -> bool:
        return self.host in _LOOPBACK or self.host.startswith("127.")


class IceServerSetting(_Group):
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


class MediaSettings(_Group):
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

    @field_validator("host_addresses", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

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


class WhisperSettings(_Group):
    short_context: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Encode only as much as a window has, not 30 s: many times cheaper on a "
        "processor, and less accurate with models that were not trained for it; `auto`: as the "
        "model declares. `python -m transcriber calibrate` measures both.",
    )
    short_context_min_s: float = Field(
        8.0, ge=1, le=30, description="Least context then, in seconds, unless the model says."
    )


class TranscriberSettings(_Group):
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


class RoomSettings(_Group):
    linger_s: float = Field(
        60.0, ge=0, description="How long a room lives on after its last participant left."
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


class AdmissionSettings(_Group):
    max_speakers: int = Field(
        0, ge=0, description="Most speakers at a time; 0 lets the three below decide."
    )
    max_loop_lag_ms: float = Field(
        100.0, gt=0, description="No speaker is admitted after a second with a longer stall."
    )
    max_cpu: float = Field(
        0.85, gt=0, le=1, description="Nor while the server uses more of one core."
    )
    max_memory: float = Field(
        0.8, gt=0, le=1, description="Nor beyond this share of the cgroup's or machine's memory."
    )


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


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_nested_delimiter="__",
        # JSON is decoded above: pydantic-settings stops at the first text that is none
        enable_decoding=False,
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
    )

    server: ServerSettings = ServerSettings()
    media: MediaSettings = MediaSettings()
    transcriber: TranscriberSettings = TranscriberSettings()
    rooms: RoomSettings = RoomSettings()
    admission: AdmissionSettings = AdmissionSettings()
    data_dir: Path = Field(
        Path("data"), description="Folder where what was said is kept; made when missing."
    )

    lt_hpb_url: str = Field(
        "", description="Nextcloud Talk's signaling server, as `https://talk.example.org`."
    )
    lt_internal_secret: str = Field(
        "", description="Its `internalsecret`, by which the bot joins calls."
    )
    nextcloud_url: str = Field("", description="Nextcloud, as the signaling server knows it.")
    skip_cert_verify: bool = Field(
        False, description="Take any certificate of Nextcloud and its signaling server."
    )
    app_id: str = Field("live_transcription", description="The app's name in Nextcloud.")
    app_secret: str = Field(
        "", description="AppAPI's secret: only who knows it may ask for captions of a call."
    )
    app_version: str = Field("1.0.0", description="The app's version, as Nextcloud is told.")
    app_host: str = Field("", description="As AppAPI says it; the same as `SERVER__HOST`.")
    app_port: int = Field(0, ge=0, le=65535, description="The same as `SERVER__PORT`.")

    @property
    def talk(self) -> TalkSettings:
        return TalkSettings(
            self.lt_hpb_url,
            self.lt_internal_secret,
            self.nextcloud_url,
            self.skip_cert_verify,
            self.app_id,
            self.app_secret,
            self.app_version,
        )

    @model_validator(mode="after")
    def _as_app(self) -> "Settings":
        """Where AppAPI says where to listen, that holds unless ours says otherwise."""
        told: dict[str, object] = {}
        if self.app_host and "host" not in self.server.model_fields_set:
            told["host"] = self.app_host
        if self.app_port and "port" not in self.server.model_fields_set:
            told["port"] = self.app_port
        if told:
            object.__setattr__(self, "server", self.server.model_copy(update=told))
        return self

    # An empty one would be the current folder.
    @field_validator("data_dir", mode="before")
    @classmethod
    def _not_empty(cls, folder: object) -> object:
        return _given(folder) if isinstance(folder, str) else folder


def engine_options(settings: TranscriberSettings) -> EngineOptions:
    """What the worker is told."""
    return EngineOptions(
        engine=settings.engine,
        model=settings.model,
        language=settings.language,
        device=settings.device,
        compute_type=settings.compute_type,
        threads=settings.threads,
        auto_download=settings.auto_download,
        short_context=settings.whisper.short_context,
        short_context_min_s=settings.whisper.short_context_min_s,
        beams=settings.beams,
        batch=settings.batch,
        diarize=settings.diarize,
    )


def is_ice_url(url: object) -> bool:
    """Whether it is one that a peer takes."""
    return isinstance(url, str) and _ICE_URL.fullmatch(url) is not None


def _given(text: str) -> str:
    if not text:
        raise ValueError("is empty; unset it for the default")
    return text


# Named by what clients rely on, and not built yet: to pass over them would open a door that
# an operator believes shut.
_NOT_YET = {
    "AUTH__SECRET": "join tokens are not built yet: rooms are open to everyone who can reach "
    "the server; unset it",
}


def load_settings(environment: dict[str, str]) -> Settings:
    """Read the environment and `.env`. Raises `BadSettings` with every fault."""
    # names are read in any case, and from `.env` too
    given = {**_read_dotenv()}
    given.update((name.lower(), value) for name, value in environment.items())
    not_yet = {name: why for name, why in _NOT_YET.items() if given.get(name.lower())}
    faults = [f"{name}: {why}" for name, why in not_yet.items()]
    try:
        settings = Settings()
    except ValidationError as error:
        others = [_fault(e) for e in error.errors()]
        faults += [fault for fault in others if fault.split(":")[0] not in not_yet]
        raise BadSettings(faults) from None
    if faults:
        raise BadSettings(faults)
    return settings


def _read_dotenv() -> Mapping[str, str | None]:
    try:
        return DotEnvSettingsSource(Settings).env_vars
    except UnicodeDecodeError:
        raise BadSettings([".env: is not UTF-8"]) from None
    except OSError as error:
        raise BadSettings([f".env: cannot be read: {error.strerror}"]) from None


def _fault(error: Any) -> str:
    name = "__".join(str(part).upper() for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    if error["type"] == "model_type" and all(isinstance(part, str) for part in error["loc"]):
        return f"{name}: is a group; its settings are named {name}__..."
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"


def describe() -> Iterator[tuple[str, str, str, str]]:
    """Name, kind, default and meaning of every setting."""
    return _describe_all(Settings, "")


def _describe_all(group: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in group.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _describe_all(kind, f"{prefix}{name}__".upper())
        else:
            yield _describe(f"{prefix}{name}".upper(), field)


def _describe(name: str, field: Any) -> tuple[str, str, str, str]:
    choices = get_args(field.annotation)
    kind = getattr(field.annotation, "__name__", "list")
    if choices and all(isinstance(c, str) for c in choices):
        kind = " ".join(choices)
    kind = {"str": "text", "int": "number", "float": "number", "Path": "folder"}.get(kind, kind)
    kind = {"tuple": "list", "dict": "table"}.get(kind, kind)
    default = field.default
    shown = "" if default in ("", (), {}) else str(default)
    return name, kind, shown, field.description or ""


def as_json(settings: Settings) -> str:
    """The settings in force, secrets hidden."""
    values = settings.model_dump(mode="json")
    if values["media"]["turn_secret"]:
        values["media"]["turn_secret"] = "(set)"
    for name in ("lt_internal_secret", "app_secret"):
        if values[name]:
            values[name] = "(set)"
    for server in values["media"]["ice_servers"]:
        if server["credential"]:
            server["credential"] = "(set)"
    return json.dumps(values, indent=2)
