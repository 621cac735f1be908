"""Settings, and the command line that reads them."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from server.config import BadSettings, Settings, as_json, describe, load_settings

ROOT = Path(__file__).parents[2]
GROUPS = ("SERVER", "MEDIA", "TRANSCRIBER", "ROOMS", "AUTH", "DATA_DIR")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(GROUPS):
            monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def faults(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    with pytest.raises(BadSettings) as refusal:
        load(monkeypatch, **environment)
    return refusal.value.faults


def dotenv(*lines: str) -> None:
    Path(".env").write_text("\n".join(lines), encoding="utf-8")


def test_without_any_setting_it_serves_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.server.is_loopback
    assert settings.media.host_addresses == ()
    assert settings.transcriber.engine == "auto"
    assert settings.rooms.linger_s == 60.0
    assert settings.data_dir == Path("data")


def test_names_are_nested_with_two_underscores(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        SERVER__PORT="9000",
        SERVER__LOG_LEVEL="debug",
        TRANSCRIBER__ENGINE="scripted",
        TRANSCRIBER__VAD="energy",
        TRANSCRIBER__LANGUAGE="de",
        ROOMS__LINGER_S="1.5",
        DATA_DIR="/srv/said",
    )
    assert settings.server.port == 9000
    assert settings.server.log_level == "debug"
    assert settings.transcriber.engine == "scripted"
    assert settings.transcriber.vad == "energy"
    assert settings.transcriber.language == "de"
    assert settings.rooms.linger_s == 1.5
    assert settings.data_dir == Path("/srv/said")


def test_settings_come_from_a_dotenv_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv("SERVER__PORT=9001", "# a comment", "ROOMS__LINGER_S=3")
    settings = load(monkeypatch)
    assert settings.server.port == 9001
    assert settings.rooms.linger_s == 3.0


def test_the_environment_comes_before_the_dotenv_file(monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv("SERVER__PORT=9001", "SERVER__HOST=::1")
    settings = load(monkeypatch, SERVER__PORT="9002")
    assert settings.server.port == 9002
    assert settings.server.host == "::1"


def test_what_is_not_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv("SOMETHING_ELSE=1")
    assert load(monkeypatch, PATH_TO_NOTHING="1") == Settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "localhost", "::1"])
def test_a_loopback_address_is_known(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert load(monkeypatch, SERVER__HOST=host).server.is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "127.example.org"])
def test_other_addresses_are_not_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert not load(monkeypatch, SERVER__HOST=host).server.is_loopback


def test_host_addresses_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, MEDIA__HOST_ADDRESSES="192.0.2.1, 2001:db8::1 ,")
    assert settings.media.host_addresses == ("192.0.2.1", "2001:db8::1")


def test_ice_servers_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        MEDIA__ICE_SERVERS='[{"urls":"stun:stun.example.org"},'
        '{"urls":["turn:a","turns:b"],"username":"u","credential":"c"}]',
    )
    stun, turn = settings.media.ice_servers
    assert (stun.urls, stun.username) == (("stun:stun.example.org",), None)
    assert (turn.urls, turn.username, turn.credential) == (("turn:a", "turns:b"), "u", "c")


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv("DATA_DIR=", "ROOMS__LINGER_S=soon")
    told = faults(
        monkeypatch,
        MEDIA="none",
        SERVER__PORT="70000",
        SERVER__LOG_LEVEL="loud",
        TRANSCRIBER__ENGINE="magic",
        AUTH__SECRET="s3cret",
    )
    assert sorted(line.split(":")[0] for line in told) == [
        "AUTH__SECRET",
        "DATA_DIR",
        "MEDIA",
        "ROOMS__LINGER_S",
        "SERVER__LOG_LEVEL",
        "SERVER__PORT",
        "TRANSCRIBER__ENGINE",
    ]
    assert all("\n" not in line for line in told)


@pytest.mark.parametrize(
    "name", ["SERVER__PROT", "MEDIA__ICE", "TRANSCRIBER__SPEED", "ROOMS__LINGER"]
)
def test_an_unknown_name_in_a_group_is_a_fault(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert faults(monkeypatch, **{name: "1"}) == [f"{name}: there is no such setting"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("{not json", "JSON"),
        ('{"urls":"stun:a"}', "list"),
        ('[{"urls":"http://a"}]', "begins with stun:"),
        ('[{"urls":"stun"}]', "names a host"),
        ('[{"urls":"stun:"}]', "names a host"),
        ('[{"urls":"turn::3478"}]', "names a host"),
        ('[{"urls":"stun://a"}]', "names a host"),
        ('[{"urls":"stun:a b"}]', "names a host"),
        ('[{"urls":["stun:a",""]}]', "begins with stun:"),
        ('[{"urls":[]}]', "at least 1"),
        ('[{"username":"u"}]', "required"),
        ('[{"urls":"stun:a","user":"u"}]', "no such setting"),
        ('["stun:a"]', "dictionary"),
    ],
)
def test_bad_ice_servers_are_a_fault_of_that_setting(
    monkeypatch: pytest.MonkeyPatch, given: str, why: str
) -> None:
    (told,) = faults(monkeypatch, MEDIA__ICE_SERVERS=given)
    assert told.startswith("MEDIA__ICE_SERVERS")
    assert why in told


@pytest.mark.parametrize(
    "url", ["stun:a.example:3478", "turn:192.0.2.1", "turns:a:443?transport=tcp", "stuns:a-b_c"]
)
def test_an_ice_server_has_a_host_and_may_have_a_port(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    settings = load(monkeypatch, MEDIA__ICE_SERVERS=json.dumps([{"urls": url}]))
    assert settings.media.ice_servers[0].urls == (url,)


@pytest.mark.parametrize("given", ["eth0", "192.0.2.1, example.org", "192.0.2.0/24", "1.2.3"])
def test_a_host_address_that_is_none_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (told,) = faults(monkeypatch, MEDIA__HOST_ADDRESSES=given)
    assert told.startswith("MEDIA__HOST_ADDRESSES: ")
    assert "does not appear to be an IPv4 or IPv6 address" in told


@pytest.mark.parametrize("name", ["SERVER__HOST", "DATA_DIR"])
@pytest.mark.parametrize("way", ["environment", "dotenv"])
def test_an_empty_address_or_folder_is_a_fault_and_not_everything(
    monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    if way == "dotenv":
        dotenv(f"{name}=")
        (told,) = faults(monkeypatch)
    else:
        (told,) = faults(monkeypatch, **{name: ""})
    assert told == f"{name}: is empty; unset it for the default"


@pytest.mark.parametrize("language", ["en", "pt-BR", "zh-Hant-TW"])
def test_a_language_is_a_tag(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    settings = load(monkeypatch, TRANSCRIBER__LANGUAGE=language)
    assert settings.transcriber.language == language


@pytest.mark.parametrize("language", ["", "english", "e", "en_US", "en-", "en\n"])
def test_a_language_that_is_no_tag_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    (told,) = faults(monkeypatch, TRANSCRIBER__LANGUAGE=language)
    assert told == ("TRANSCRIBER__LANGUAGE: a language is a tag such as en or pt-BR, or auto")


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("AUTH__SECRET", "s3cret", "fewer than 32 characters"),
        ("AUTH__JWKS_URL", "http://id.example.org/keys", "begins with https://"),
        ("SERVER__TLS", "cert.pem", "CERT,KEY"),
        ("SERVER__TLS", "cert.pem,", "CERT,KEY"),
        ("SERVER__TRUSTED_PROXIES", "192.0.2.1,here", "does not appear to be"),
        ("SERVER__ALLOWED_ORIGINS", "example.org", "a scheme and a host"),
        ("SERVER__EMBEDDED_BY", "https://example.org/path", "a scheme and a host"),
        ("MEDIA__ALLOWED_NETWORKS", "10.0.0.0/33", "does not appear to be"),
        ("LIMITS__MESSAGE_BYTES", "1000000", "less than or equal"),
    ],
)
def test_a_door_that_is_not_a_door_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, why: str
) -> None:
    (told,) = faults(monkeypatch, **{name: given})
    assert told.startswith(f"{name}: ")
    assert why in told
    assert "s3cret" not in told


def test_networks_and_sites_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        SERVER__TRUSTED_PROXIES="127.0.0.1, 10.1.2.3/8",
        SERVER__ALLOWED_ORIGINS="https://A.example.org,http://b:8080",
        MEDIA__ALLOWED_NETWORKS="192.0.2.0/24",
    )
    assert settings.server.trusted_proxies == ("127.0.0.1/32", "10.0.0.0/8")
    assert settings.server.allowed_origins == ("https://a.example.org", "http://b:8080")
    assert settings.media.allowed_networks == ("192.0.2.0/24",)


@pytest.mark.parametrize("given", ["", "8080", "foo", "{not json", "{}"])
@pytest.mark.parametrize("way", ["environment", "dotenv"])
def test_a_group_without_a_name_is_a_fault_of_it_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, given: str, way: str
) -> None:
    if way == "dotenv":
        dotenv(f"SERVER={given}")
    else:
        monkeypatch.setenv("SERVER", given)
    told = faults(monkeypatch, ROOMS__LINGER_S="-1")
    assert told == [
        "SERVER: is a group; its settings are named SERVER__...",
        "ROOMS__LINGER_S: Input should be greater than or equal to 0",
    ]


def test_settings_in_force_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        AUTH__SECRET="s3cret" * 8,
        MEDIA__TURN_SECRET="s3cret",
        MEDIA__ICE_SERVERS='[{"urls":"turn:a","username":"u","credential":"pa55"}]',
    )
    shown = json.loads(as_json(settings))
    assert shown["media"]["turn_secret"] == "(set)"
    assert shown["auth"]["secret"] == "(set)"
    assert shown["media"]["ice_servers"][0]["credential"] == "(set)"
    assert shown["server"]["port"] == 8080


def test_every_setting_is_described() -> None:
    described = list(describe())
    names = [name for name, *_ in described]
    assert len(set(names)) == len(names)
    assert {"SERVER__PORT", "MEDIA__ICE_SERVERS", "TRANSCRIBER__ENGINE", "DATA_DIR"} <= set(names)
    for name, kind, _default, meaning in described:
        assert kind, name
        assert meaning.endswith("."), name
    assert ("SERVER__PORT", "number", "8080") in [d[:3] for d in described]
    assert ("TRANSCRIBER__VAD", "silero energy", "silero") in [d[:3] for d in described]
    assert ("MEDIA__ICE_SERVERS", "list", "") in [d[:3] for d in described]
    assert ("DATA_DIR", "folder", "data") in [d[:3] for d in described]


def command(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m server` as an operator runs it, in the current folder."""
    return subprocess.run(
        [sys.executable, "-m", "server", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_bad_settings_end_the_start_with_a_line_for_each() -> None:
    ended = command(SERVER__PORT="x", SERVER__PROT="1", AUTH__SECRET="s")
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("roomscribe: ") for line in lines)
    for name in ("SERVER__PORT", "SERVER__PROT", "AUTH__SECRET"):
        assert sum(name in line for line in lines) == 1
    assert not Path("data").exists()


def test_a_dotenv_file_that_is_not_utf_8_is_one_line() -> None:
    Path(".env").write_bytes("DATA_DIR=Gespräche".encode("latin-1"))
    ended = command()
    assert (ended.returncode, ended.stderr) == (2, "roomscribe: .env: is not UTF-8\n")


def test_a_dotenv_file_that_cannot_be_read_is_one_line() -> None:
    Path(".env").symlink_to("/proc/self/mem")  # opens, also for root, and then fails to read
    ended = command()
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("roomscribe: .env: cannot be read: ")


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = command(SERVER__PORT=str(port), TRANSCRIBER__ENGINE="scripted")
    assert ended.returncode == 2
    assert ended.stderr == (
        f"roomscribe: port {port} on 127.0.0.1 is in use; choose another with SERVER__PORT\n"
    )


def test_an_address_that_is_not_ours_is_one_line() -> None:
    ended = command(
        "--open-to-everyone",
        SERVER__HOST="192.0.2.1",
        SERVER__PORT="0",
        TRANSCRIBER__ENGINE="scripted",
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("roomscribe: cannot listen on 192.0.2.1 port 0: ")


def test_a_data_folder_that_cannot_be_is_one_line() -> None:
    Path("said").write_text("a file")
    ended = command(SERVER__PORT="0", DATA_DIR="said", TRANSCRIBER__ENGINE="scripted")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("roomscribe: ")


def test_the_command_line_lists_every_setting() -> None:
    ended = command("settings", SERVER__PORT="9000", MEDIA__TURN_SECRET="s3cret")
    assert ended.returncode == 0, ended.stderr
    for name, *_, meaning in describe():
        assert f"  {name}  (" in ended.stdout
        assert meaning in ended.stdout
    in_force = json.loads(ended.stdout.split("In force:\n")[1])
    assert in_force["server"]["port"] == 9000
    assert "s3cret" not in ended.stdout


def test_help_lists_every_setting_too() -> None:
    ended = command("--help")
    assert ended.returncode == 0, ended.stderr
    for name, *_ in describe():
        assert name in ended.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    assert command("dance").returncode == 2


def test_the_readme_has_the_table_of_settings() -> None:
    ended = command("settings", "--markdown")
    assert ended.returncode == 0, ended.stderr
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- settings:begin -->\n(.*?)<!-- settings:end -->", readme, re.DOTALL)
    assert block is not None
    assert block[1] == ended.stdout, "run `python -m server settings --markdown`"
