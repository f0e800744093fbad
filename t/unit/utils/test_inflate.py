"""Compressed data becomes no larger than agreed, whoever sent it."""

from __future__ import annotations

import bz2
import lzma
import zlib

import pytest

from celery.utils.inflate import TooMuch, inflate

PACKERS = {
    "gzip": zlib.compress,
    "application/x-gzip": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "application/x-lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
}


@pytest.mark.parametrize("name", list(PACKERS))
def test_data_up_to_the_limit_come_back(name):
    data = b"blank " * 1000
    assert inflate(PACKERS[name](data), name, len(data)) == data


@pytest.mark.parametrize("name", list(PACKERS))
def test_data_beyond_the_limit_are_refused_and_not_unpacked(name):
    bomb = PACKERS[name](b" " * 5_000_000)
    with pytest.raises(TooMuch, match="1,000 bytes"):
        inflate(bomb, name, 1000)


@pytest.mark.parametrize("name", list(PACKERS))
def test_data_that_are_cut_off_are_an_error(name):
    packed = PACKERS[name](bytes(range(256)) * 100)
    with pytest.raises(Exception, match=r".") as caught:
        inflate(packed[: len(packed) // 2], name)
    assert not isinstance(caught.value, TooMuch)


@pytest.mark.parametrize("name", ["application/x-nothing", "", 5, None, ["gzip"]])
def test_an_unknown_compression_is_refused(name):
    with pytest.raises(ValueError, match="compression"):
        inflate(b"abc", name)


def test_zstandard_is_bounded_too():
    zstandard = pytest.importorskip("zstandard")
    bomb = zstandard.ZstdCompressor().compress(b" " * 5_000_000)
    with pytest.raises(TooMuch):
        inflate(bomb, "application/zstd", 1000)
    assert len(inflate(bomb, "application/zstd", 5_000_000)) == 5_000_000
