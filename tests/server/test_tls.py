"""The certificate of `--tls auto`, and files that change while they are used."""

import asyncio
import datetime
import ipaddress
import shutil
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from server import tls
from server.app import CannotListen, running
from server.config import Settings
from server.tls import BadCertificate, Certificate, certificate_of


def made(folder: Path, *addresses: str) -> Certificate:
    certificate = certificate_of("auto", folder, addresses)
    assert certificate is not None
    return certificate


def names(folder: Path) -> x509.SubjectAlternativeName:
    read = x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())
    return read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def serial(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes()).serial_number


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def with_tls(settings: Settings, value: str) -> Settings:
    server = settings.server.model_copy(update={"tls": value})
    return settings.model_copy(update={"server": server})


def test_without_the_setting_there_is_none(tmp_path: Path) -> None:
    assert certificate_of("", tmp_path, ()) is None
    assert not list(tmp_path.iterdir())


def test_one_is_made_for_this_machines_names(tmp_path: Path) -> None:
    made(tmp_path / "tls", "192.0.2.7", "2001:db8::7")
    told = names(tmp_path / "tls")
    assert "localhost" in told.get_values_for_type(x509.DNSName)
    assert set(told.get_values_for_type(x509.IPAddress)) == {
        ipaddress.ip_address(a) for a in ("127.0.0.1", "::1", "192.0.2.7", "2001:db8::7")
    }


def test_its_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    made(tmp_path / "tls")
    assert stat.S_IMODE((tmp_path / "tls/key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_it_is_kept_while_it_will_do(tmp_path: Path) -> None:
    made(tmp_path, "192.0.2.7", "192.0.2.8")
    first = serial(tmp_path)
    made(tmp_path, "192.0.2.7")
    assert serial(tmp_path) == first
    made(tmp_path, "192.0.2.9")  # the machine has moved
    assert serial(tmp_path) != first


@pytest.mark.parametrize("spoil", ["key.pem", "certificate.pem"])
def test_it_is_made_anew_where_it_is_broken(tmp_path: Path, spoil: str) -> None:
    made(tmp_path)
    first = serial(tmp_path)
    if spoil == "key.pem":
        (tmp_path / spoil).unlink()
    else:
        (tmp_path / spoil).write_text("spoilt")
    made(tmp_path)
    assert serial(tmp_path) != first


def test_it_is_made_anew_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_VALID_DAYS", 20)
    made(tmp_path)
    first = serial(tmp_path)
    monkeypatch.undo()
    made(tmp_path)
    read = x509.load_pem_x509_certificate((tmp_path / "certificate.pem").read_bytes())
    assert read.serial_number != first
    left = read.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left.days > 300


def test_old_protocols_are_not_spoken(tmp_path: Path) -> None:
    assert made(tmp_path).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_files_that_are_no_certificate_are_one_line(tmp_path: Path) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b")
    (tmp_path / "text").write_text("no certificate")
    for given in (
        f"{tmp_path}/none,{tmp_path}/a/key.pem",
        f"{tmp_path}/a/certificate.pem,{tmp_path}/none",
        f"{tmp_path}/text,{tmp_path}/a/key.pem",
        f"{tmp_path}/a/certificate.pem,{tmp_path}/b/key.pem",
    ):
        with pytest.raises(BadCertificate) as error:
            certificate_of(given, tmp_path, ())
        assert str(error.value).startswith("SERVER__TLS: ")
        assert str(tmp_path) not in str(error.value)
        assert "\n" not in str(error.value)


async def test_a_server_that_cannot_have_it_does_not_start(settings: Settings) -> None:
    with pytest.raises(CannotListen, match="SERVER__TLS"):
        async with running(with_tls(settings, "none,none")):
            pass


async def test_it_is_served(settings: Settings) -> None:
    async with (
        running(with_tls(settings, "auto")) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        assert server.url.startswith("https://127.0.0.1:")
        context = trusting(settings.data_dir / "tls/certificate.pem")
        async with http.get(f"{server.url}/healthz", ssl=context) as answer:
            assert answer.status == 200
            # a browser that was told once would not let anyone through a warning again
            assert "Strict-Transport-Security" not in answer.headers
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{server.url}/healthz")


async def test_files_that_change_are_read_again(settings: Settings, tmp_path: Path) -> None:
    made(tmp_path / "first")
    made(tmp_path / "second")
    used = tmp_path / "used"
    shutil.copytree(tmp_path / "first", used)
    certificate = certificate_of(f"{used}/certificate.pem,{used}/key.pem", tmp_path, ())
    assert certificate is not None
    port = 0

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async with await asyncio.start_server(hello, "127.0.0.1", 0, ssl=certificate.context) as door:
        port = door.sockets[0].getsockname()[1]

        async def is_served(folder: Path) -> bool:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=trusting(folder / "certificate.pem")
                )
            except ssl.SSLCertVerificationError:
                return False
            told = await reader.read()
            writer.close()
            await writer.wait_closed()
            return told == b"hello"

        assert await is_served(tmp_path / "first")
        # half of a pair, as while a tool writes them
        shutil.copy(tmp_path / "second/certificate.pem", used)
        certificate.refresh()
        assert await is_served(tmp_path / "first")
        shutil.copy(tmp_path / "second/key.pem", used)
        certificate.refresh()
        assert await is_served(tmp_path / "second")
        assert not await is_served(tmp_path / "first")
        (used / "key.pem").unlink()
        certificate.refresh()
        assert await is_served(tmp_path / "second")


async def test_a_certificate_that_browsers_know_is_asked_for_ever_after(
    settings: Settings, tmp_path: Path
) -> None:
    made(tmp_path / "own")
    pair = f"{tmp_path}/own/certificate.pem,{tmp_path}/own/key.pem"
    async with running(with_tls(settings, pair)) as server, aiohttp.ClientSession() as http:
        context = trusting(tmp_path / "own/certificate.pem")
        async with http.get(f"{server.url}/healthz", ssl=context) as answer:
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
