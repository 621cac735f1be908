"""One target under atheris: `python -m tests.fuzz.guided TARGET [libFuzzer's arguments]`.

A process of its own: the parsers have to be imported under atheris' eyes, and libFuzzer ends the
process itself.
"""

import sys

import atheris

_LOOKED_AT = ["server", "signaling", "media", "transcriber", "aiortc", "aioice", "dns", "jwt"]

with atheris.instrument_imports(include=_LOOKED_AT):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    with TARGETS[name]() as feed:
        atheris.Setup(sys.argv, feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
