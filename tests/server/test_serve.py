"""What `python -m server` has done before it serves."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_APART = """
import ctypes
from server import __main__ as command

class Told(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks more".split()]
    _fields_ += [("rest", ctypes.c_size_t * 5)]

def pieces_apart():
    told = ctypes.CDLL(None).mallinfo2
    told.restype = Told
    return told().hblks

async def tell(_settings):
    before = pieces_apart()
    small = [bytes(2_000) for _ in range(500)]
    of_small = pieces_apart() - before
    large = [bytes(4_000) for _ in range(30_000)]
    print(of_small, pieces_apart())

command.serve = tell
command.main()
"""


def test_large_pieces_of_a_server_lie_apart_and_only_so_many(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _APART],
        cwd=tmp_path,  # where no .env is
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    of_small, apart = map(int, ran.stdout.split())
    assert of_small < 50  # their list is large itself
    assert apart == 20_000
