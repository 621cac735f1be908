"""To wait for an event, and not for long."""

import asyncio


async def pause(until: asyncio.Event, at_most_s: float) -> None:
    """Ends early where the event comes."""
    try:
        async with asyncio.timeout(max(0.0, at_most_s)):
            await until.wait()
    except TimeoutError:
        pass
