"""The soak as a process of its own, as a person starts it."""

import asyncio
import os
import subprocess
import sys


async def soak(*arguments: object, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "soak"),
        *(str(argument) for argument in arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )


async def said_by(process: asyncio.subprocess.Process) -> str:
    out, _ = await process.communicate()
    return out.decode()
