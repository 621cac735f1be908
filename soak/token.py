"""The join token that a server with doors asks of a load: for every room, to speak and to read."""

import argparse
import os

VARIABLE = "SOAK_TOKEN"


def add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--token",
        default=os.environ.get(VARIABLE),
        help=f"where the server has doors; of {VARIABLE}, too, which no list of processes shows",
    )


def headers_of(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
