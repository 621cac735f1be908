"""`Settings`: the only reader of the environment.

Names are nested with `__` (`SERVER__PORT`), and come from the environment first, then from
a `.env` file in the current folder. All faults are told at once.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from server.settings import (
    AdmissionSettings,
    AuthSettings,
    LimitSettings,
    MediaSettings,
    RoomSettings,
    ServerSettings,
    TalkSettings,
    TranscriberSettings,
    given,
)
from transcriber.engines import EngineOptions


class BadSettings(Exception):
    """`faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


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
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
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
        return given(folder) if isinstance(folder, str) else folder


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


def load_settings() -> Settings:
    """Read the environment and `.env`. Raises `BadSettings` with every fault."""
    _check_dotenv()
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettings([_fault(e) for e in error.errors()]) from None


def _check_dotenv() -> None:
    try:
        DotEnvSettingsSource(Settings)
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
    for group, name in (("media", "turn_secret"), ("auth", "secret")):
        if values[group][name]:
            values[group][name] = "(set)"
    for name in ("lt_internal_secret", "app_secret"):
        if values[name]:
            values[name] = "(set)"
    for server in values["media"]["ice_servers"]:
        if server["credential"]:
            server["credential"] = "(set)"
    return json.dumps(values, indent=2)
