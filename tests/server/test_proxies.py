"""Whom a proxy's word is taken of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server.proxies import believe

Headers = dict[str, str]


@asynccontextmanager
async def asking(*proxies: str) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """Asks who one is."""

    async def tell(request: web.Request) -> web.Response:
        body = await request.text()
        return web.json_response([request.remote, request.scheme, request.host, body])

    app = web.Application(middlewares=[believe(proxies)])
    app.router.add_post("/", tell)
    async with TestClient(TestServer(app)) as client:
        yield client


async def who(client: TestClient[web.Request, web.Application], headers: Headers) -> list[str]:
    answer = await client.post("/", headers={"Host": "here", **headers}, data="the body")
    told: list[str] = await answer.json()
    assert told.pop() == "the body"
    return told


@pytest.mark.parametrize("proxies", [(), ("192.0.2.0/24",)])
async def test_of_a_stranger_nothing_is_believed(proxies: tuple[str, ...]) -> None:
    async with asking(*proxies) as client:
        said = {
            "X-Forwarded-For": "198.51.100.1",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "there",
        }
        assert await who(client, said) == ["127.0.0.1", "http", "here"]


@pytest.mark.parametrize(
    ("said", "remote"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("203.0.113.9, 198.51.100.1", "198.51.100.1"),  # the first may be made up
        ("198.51.100.1, 10.0.0.7", "198.51.100.1"),
        ("198.51.100.1, 127.0.0.1, 10.0.0.7", "198.51.100.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.7", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
        (" , ,", "127.0.0.1"),
    ],
)
async def test_the_last_who_is_no_proxy_is_the_sender(said: str, remote: str) -> None:
    async with asking("127.0.0.0/8", "10.0.0.0/8") as client:
        assert (await who(client, {"X-Forwarded-For": said}))[0] == remote


async def test_of_several_hosts_the_last_proxys_counts() -> None:
    async with asking("127.0.0.1/32") as client:
        said = {"X-Forwarded-Host": "made.up, captions.example.org"}
        assert (await who(client, said))[2] == "captions.example.org"


async def test_scheme_and_host_are_the_senders() -> None:
    async with asking("127.0.0.1/32") as client:
        said = {"X-Forwarded-Proto": "HTTPS", "X-Forwarded-Host": "captions.example.org"}
        assert (await who(client, said))[1:] == ["https", "captions.example.org"]
        assert (await who(client, {"X-Forwarded-Proto": "gopher"}))[1:] == ["http", "here"]
