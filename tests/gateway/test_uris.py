"""Which URIs can be read, and which addresses may be connected to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError, PermissionDeniedError
from services.gateway.addresses import AddressGuard, private_networks
from services.gateway.uris import AllowList, S3Object, Target, parse_uri

PUBLIC = AddressGuard()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://Example.org", Target("example.org", 443, "/")),
        ("https://example.org/a?b=c&d", Target("example.org", 443, "/a?b=c&d")),
        ("https://a-1.example.org:8443/%20x", Target("a-1.example.org", 8443, "/%20x")),
        ("https://example.org:443/a", Target("example.org", 443, "/a")),
        ("https://3com.example.x1/a", Target("3com.example.x1", 443, "/a")),
        ("s3://bucket/a/b%20c", S3Object("bucket", "a/b c")),
    ],
)
def test_read(uri: str, expected: Target | S3Object) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.org/a",
        "ftp://example.org/a",
        "file:///etc/passwd",
        "https:///a",
        "https://user@example.org/a",
        "https://user:word@example.org/a",
        "https://example.org@evil.example/a",
        "https://example.org/a#b",
        "https://example.org\\@evil.example/a",
        "https://example.org/a\r\nhost: evil",
        "https://example.org/ a",
        "https://ex\u00e4mple.org/a",
        "https://example.org./a",
        "https://exa_mple.org/a",
        "https://-a.org/a",
        "https://example.org:0/a",
        "https://example.org:99999/a",
        "https://example.org:a/a",
        "https://127.0.0.1/a",
        "https://127.1/a",
        "https://2130706433/a",
        "https://0x7f000001/a",
        "https://0x7f.1/a",
        "https://[::1]/a",
        "https://[fe80::1%25eth0]/a",
        "https://" + "a." * 150 + "org/a",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "s3://Bucket/key",
        "s3://bucket:80/key",
        "s3://user@bucket/key",
        "s3://bucket/a/../../other/key",
        "s3://bucket/%2e%2e/other/key",
        "s3://bucket/key?versionId=1",
        "s3://../key",
    ],
)
def test_not_read(uri: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_uri(uri)
    assert refused.value.reason == "INVALID_URI"


@given(st.text(max_size=60))
def test_whatever_is_read_asks_for_exactly_one_thing(text: str) -> None:
    for uri in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            found = parse_uri(uri)
        except InvalidInputError:
            continue
        assert isinstance(found, Target)
        assert not set(found.authority + found.path) & set(" \t\r\n\\#")
        assert not set(found.authority) & set("/@?")
        assert parse_uri(found.url) == found


def test_an_object_stays_in_its_bucket() -> None:
    found = parse_uri("s3://bucket/a%2Fb%3Fc%23d//e")
    assert isinstance(found, S3Object)
    assert found.at(Target("storage.example", 9000, "/")) == Target("storage.example", 9000, "/bucket/a/b%3Fc%23d//e")


@pytest.mark.parametrize(
    ("uri", "listed"),
    [
        ("https://a.example/x", True),
        ("https://b.example:8443/x", True),
        ("https://b.example/x", False),
        ("https://www.c.example/x", True),
        ("https://deep.www.c.example/x", True),
        ("https://c.example/x", False),
        ("https://notc.example/x", False),
        ("https://a.example.evil.example/x", False),
        ("https://a.example:444/x", False),
    ],
)
def test_hosts_are_listed_by_name_port_or_what_is_below(uri: str, listed: bool) -> None:
    hosts = AllowList(["A.example", "b.example:8443", "*.c.example"])
    target = parse_uri(uri)
    assert isinstance(target, Target)
    if listed:
        hosts.check_target(target)
    else:
        with pytest.raises(PermissionDeniedError):
            hosts.check_target(target)


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(PermissionDeniedError):
        AllowList().check_target(Target("example.org", 443, "/"))
    with pytest.raises(PermissionDeniedError):
        AllowList().check_object(S3Object("bucket", "key"))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "localhost",
        "",
    ],
)
def test_no_private_address_is_permitted(address: str) -> None:
    assert not PUBLIC.permits(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert PUBLIC.permits(address)


@given(st.ip_addresses())
def test_only_global_unicast_is_ever_permitted(address: IPv4Address | IPv6Address) -> None:
    if PUBLIC.permits(str(address)):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_private


def test_networks_of_the_operators_own_are_permitted_and_no_others() -> None:
    guard = AddressGuard(private_networks(["10.20.0.0/16", "fd12:3456::/32"]))
    assert guard.permits("10.20.1.1")
    assert guard.permits("::ffff:10.20.1.1")
    assert guard.permits("fd12:3456::1")
    assert not guard.permits("10.21.1.1")
    assert not guard.permits("127.0.0.1")


@pytest.mark.parametrize(
    "network",
    [
        "127.0.0.0/8",
        "127.0.0.1/32",
        "169.254.169.254/32",
        "0.0.0.0/0",
        "0.0.0.0/8",
        "::1/128",
        "fe80::/10",
        "::/0",
        "fd00::/8",
        "1.1.1.0/24",
        "x",
    ],
)
def test_this_machine_and_its_platform_cannot_be_made_a_network_of_ones_own(network: str) -> None:
    with pytest.raises(ValueError, match=r"network|address"):
        private_networks([network])
