from server.ice import ice_servers_for
from server.settings import IceServerSetting, MediaSettings
from signaling.messages import IceServerEntry

STUN = IceServerSetting(urls=("stun:stun.example.org",))
TURN = IceServerSetting(urls=("turn:turn.example.org?transport=udp",))
NOW = 1_760_000_000.9


def test_without_servers_there_are_none() -> None:
    assert ice_servers_for(MediaSettings(), "p1", NOW) == ()


def test_turn_credentials_are_those_of_coturns_rest_scheme() -> None:
    """printf '1760086400:p1' | openssl dgst -sha1 -hmac 'north star' -binary | base64"""
    media = MediaSettings(ice_servers=(TURN,), turn_secret="north star")
    assert ice_servers_for(media, "p1", NOW) == (
        IceServerEntry(
            urls=TURN.urls,
            username="1760086400:p1",
            credential="eScIaRaHErdb3H2TtXQpC1VezGI=",  # pragma: allowlist secret
        ),
    )


def test_credentials_expire_when_the_settings_say() -> None:
    media = MediaSettings(ice_servers=(TURN,), turn_secret="s", turn_ttl_s=60)
    (server,) = ice_servers_for(media, "p1", NOW)
    assert server.username == "1760000060:p1"


def test_everyone_gets_credentials_of_their_own() -> None:
    media = MediaSettings(ice_servers=(TURN,), turn_secret="s")
    (of_one,) = ice_servers_for(media, "p1", NOW)
    (of_two,) = ice_servers_for(media, "p2", NOW)
    assert of_one.credential != of_two.credential


def test_a_stun_server_gets_no_credentials() -> None:
    media = MediaSettings(ice_servers=(STUN,), turn_secret="s")
    assert ice_servers_for(media, "p1", NOW) == (IceServerEntry(urls=STUN.urls),)


def test_credentials_that_are_set_are_left_as_they_are() -> None:
    fixed = IceServerSetting(urls=("turns:t",), username="u", credential="c")
    media = MediaSettings(ice_servers=(fixed, STUN), turn_secret="s")
    assert ice_servers_for(media, "p1", NOW) == (
        IceServerEntry(urls=("turns:t",), username="u", credential="c"),
        IceServerEntry(urls=STUN.urls),
    )


def test_without_a_secret_no_credentials_are_made() -> None:
    media = MediaSettings(ice_servers=(TURN,))
    assert ice_servers_for(media, "p1", NOW) == (IceServerEntry(urls=TURN.urls),)
