"""The pion receiver in `soak/pion/main.go`, built where Debian has what it needs.

Go's modules are switched off: the packages are Debian's own, and nothing is downloaded. Only the
compiler's cache is left behind, in Go's usual place.
"""

import os
import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("pion")
_GOPATH = Path("/usr/share/gocode")  # where Debian's golang-*-dev packages are
_BUILD_S = 300  # 5 s on two idle cores with an empty cache
_INSTALL = "apt-get install --no-install-recommends"


class CannotBuild(Exception):
    """The compiler refused, or took too long."""


def why_not() -> str | None:
    """What is missing here and what installs it; None if the receiver can be built."""
    present = {
        "golang-go": shutil.which("go") is not None,
        "golang-github-pion-webrtc.v3-dev": (_GOPATH / "src/github.com/pion/webrtc").is_dir(),
        "gcc": shutil.which("gcc") is not None,
        "libc6-dev": Path("/usr/include/stdlib.h").is_file(),
        "pkg-config": shutil.which("pkg-config") is not None,
        "libopus-dev": Path("/usr/include/opus/opus.h").is_file(),
    }
    missing = [package for package, is_there in present.items() if not is_there]
    return f"missing: {_INSTALL} {' '.join(missing)}" if missing else None


def build(folder: Path) -> Path:
    """Build into `folder`; returns the binary. Raises `CannotBuild`. Blocks while it compiles."""
    binary = folder / "pion"
    modules_off = {"GO111MODULE": "off", "GOPATH": str(_GOPATH), "GOFLAGS": "", "CGO_ENABLED": "1"}
    try:
        subprocess.run(
            ["go", "build", "-o", str(binary), "."],
            cwd=_SOURCE,
            env={**os.environ, **modules_off},
            check=True,
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
        )
    except subprocess.CalledProcessError as error:
        raise CannotBuild(error.stderr.strip()) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(str(error)) from error
    return binary
