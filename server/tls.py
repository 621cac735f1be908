"""HTTPS: with a certificate of this server's own making, or with files that are read again when
they change. A pair that does not fit together leaves the one before in place.
"""

import asyncio
import datetime
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LOOK_EVERY_S = 10.0
# Safari takes no longer ones.
_VALID_DAYS, _ANEW_DAYS = 397, 30
_PROTOCOLS = ["http/1.1"]

log = logging.getLogger("roomscribe.tls")

State = tuple[tuple[int, int, int], ...]


class BadCertificate(Exception):
    """The message is one line for an operator."""


class Certificate:
    """The files of a certificate and its key, and the context that has them loaded."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `BadCertificate`."""
        self._files = certificate, key
        self._state = self._look()
        self.context = _context()
        _load(self.context, certificate, key)

    async def run(self) -> None:
        """Load the files again when they have changed; connections that are open go on."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.refresh()

    def refresh(self) -> None:
        """Look at the files now."""
        try:
            state = self._look()
            if state == self._state:
                return
            _load(_context(), *self._files)  # a context keeps what half a load left in it
            _load(self.context, *self._files)
        except BadCertificate as error:
            log.warning("the certificate could not be loaded again", extra={"error": str(error)})
            return
        self._state = state
        log.info("the certificate was loaded again")

    def _look(self) -> State:
        try:
            facts = [file.stat() for file in self._files]
        except OSError as error:
            raise BadCertificate(f"SERVER__TLS: {_file_of(error)}: {error.strerror}") from None
        return tuple((fact.st_mtime_ns, fact.st_size, fact.st_ino) for fact in facts)


def certificate_of(tls: str, folder: Path, addresses: Sequence[str]) -> Certificate | None:
    """What the setting asks for; one of our own making is kept in `folder`. Raises
    `BadCertificate`."""
    if not tls:
        return None
    if tls != "auto":
        certificate, key = (Path(part.strip()) for part in tls.split(","))
        return Certificate(certificate, key)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = _names(addresses)
    if not _serves(certificate, key, names):
        try:
            _make(certificate, key, names)
        except OSError as error:
            raise BadCertificate(f"{_file_of(error)}: {error.strerror}") from None
    return Certificate(certificate, key)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_PROTOCOLS)
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # a password would be asked for at a terminal
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError:
        raise BadCertificate(
            "SERVER__TLS: the certificate and the key do not fit, or need a password"
        ) from None
    except OSError as error:
        raise BadCertificate(f"SERVER__TLS: {_file_of(error)}: {error.strerror}") from None


def _file_of(error: OSError) -> str:
    return Path(str(error.filename)).name if error.filename else "a file"


def _names(addresses: Sequence[str]) -> list[x509.GeneralName]:
    """What people may type in: this machine's name, and its addresses."""
    host = socket.gethostname()
    hosts = dict.fromkeys(name for name in ("localhost", host, f"{host}.local") if _is_name(name))
    ips = dict.fromkeys(
        ipaddress.ip_address(address) for address in ("127.0.0.1", "::1", *addresses)
    )
    return [*map(x509.DNSName, hosts), *map(x509.IPAddress, ips)]


def _is_name(host: str) -> bool:
    return host.isascii() and bool(host) and " " not in host


def _serves(certificate: Path, key: Path, names: list[x509.GeneralName]) -> bool:
    """Whether the one that was made before will do: it has all the names, and some time left."""
    try:
        made = x509.load_pem_x509_certificate(certificate.read_bytes())
        has = set(made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        left = made.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        return key.exists() and has >= set(names) and left.days >= _ANEW_DAYS
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False


def _make(certificate: Path, key: Path, names: list[x509.GeneralName]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "roomscribe")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(
        key,
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    _write(certificate, made.public_bytes(serialization.Encoding.PEM))
    log.info("made a certificate", extra={"names": len(names), "days": _VALID_DAYS})


def _write(file: Path, data: bytes) -> None:
    """Readable by its owner alone, from the first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(data)
