"""To whom the server sends, and to whom it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.networks import admitting

IN_A_LAN = ("192.168.7.2", "fd12::2", "203.0.113.9")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "192.168.200.1", "fd99::1", "::ffff:8.8.8.8", "203.0.113.1"],
)
def test_what_is_public_or_ours_is_met(address: str) -> None:
    assert admitting((), IN_A_LAN)(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "100.64.0.1",
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.251",
        "ff02::fb",
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
        "240.0.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:a00:1::",
        "2002:7f00:1::1",
    ],
)
def test_what_only_the_server_reaches_is_not(address: str) -> None:
    assert not admitting((), IN_A_LAN)(address)


@pytest.mark.parametrize(
    ("own", "address"),
    [
        ("10.1.2.3", "10.200.0.1"),
        ("172.17.0.2", "172.30.0.1"),
        ("100.64.0.9", "100.64.3.3"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:10.0.0.1", "10.9.9.9"),
        ("192.0.2.7", "192.0.2.9"),
    ],
)
def test_a_range_is_open_to_a_server_that_is_in_it(own: str, address: str) -> None:
    assert admitting((), (own,))(address)
    assert not admitting((), ())(address)


def test_metadata_is_not_met_from_within_its_range() -> None:
    admits = admitting((), ("100.100.0.1", "fd00:ec2::1", "169.254.0.7"))
    assert admits("100.100.0.2")
    for address in ("100.100.100.200", "fd00:ec2::254", "169.254.169.254"):
        assert not admits(address)


def test_a_list_is_the_whole_answer() -> None:
    admits = admitting(("10.0.0.0/8", "169.254.7.0/24"), IN_A_LAN)
    assert admits("10.3.3.3")
    assert admits("169.254.7.1")
    assert admits("::ffff:10.3.3.3")
    for address in ("8.8.8.8", "192.168.7.9", "169.254.169.254"):
        assert not admits(address)


def test_nobody_is_met_on_a_multicast_address() -> None:
    admits = admitting(("0.0.0.0/0", "::/0"), ())
    assert admits("8.8.8.8")
    for address in ("224.0.0.251", "ff02::1", "0.0.0.0", "::"):
        assert not admits(address)


@given(st.ip_addresses())
def test_every_address_has_an_answer(address: object) -> None:
    for allowed in ((), ("10.0.0.0/8",)):
        assert admitting(allowed, IN_A_LAN)(str(address)) in (True, False)
