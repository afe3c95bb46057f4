"""A puid in two stores: one counts characters, the other bytes."""

import pytest

from service.state.puids import digest, storage_bytes, storage_key


@pytest.mark.parametrize(
    ("puid", "key"),
    [
        ("", ""),
        ("ü" * 200, "ü" * 200),
        ("x" * 201, "x" * 100 + "~12bf1cc881648017342067435dc826c6"),
    ],
)
def test_a_puid_with_too_many_characters_is_cut_and_gets_a_digest(puid, key):
    assert storage_key(puid, 200) == key


@pytest.mark.parametrize(
    ("puid", "key"),
    [
        ("", b""),
        ("ü" * 24, "ü".encode() * 24),
        ("x" * 60, b"xxxxxxxxxxxxxxx~09a6f2511d55dee441de3221f47c23ef"),
        ("a\0b", b"a?b~852635742d6eb30fdccb0e7c1b53d92f"),
    ],
)
def test_a_puid_with_too_many_bytes_or_a_nul_is_cut_and_gets_a_digest(puid, key):
    assert storage_bytes(puid, 48) == key
    assert len(key) <= 48


def test_different_texts_have_different_digests():
    assert len({digest(puid) for puid in ("", "a", "a\0", "\ud800", "ü")}) == 5
