"""Frames between agent and trainer: what passes, what is refused."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.frames import (
    MAX_FRAME_BYTES,
    PeerClosed,
    is_sealed,
    memory_file,
    receive_frame,
    seal,
    send_frame,
)
from larrey_protocol.errors import TransportError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans(), st.none())))
def test_a_frame_arrives_as_it_was_sent(value):
    one, other = socket.socketpair()
    with one, other:
        send_frame(one, value)
        assert receive_frame(other) == (value, [])


def test_a_file_arrives_as_a_descriptor_of_the_same_content(pair):
    fd = seal(memory_file("x", [b"abc", b"def"]))
    send_frame(pair[0], {"op": "take"}, [fd])
    os.close(fd)
    value, files = receive_frame(pair[1])
    assert os.pread(files[0], 100, 0) == b"abcdef"
    assert value == {"op": "take"}
    assert is_sealed(files[0])
    assert not os.get_inheritable(files[0])
    os.close(files[0])


def test_a_sealed_file_can_no_longer_change():
    fd = seal(memory_file("x", [b"abc"]))
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"z", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 1)
    os.close(fd)


def test_an_ordinary_file_does_not_count_as_sealed(tmp_path):
    with (tmp_path / "f").open("wb") as file:
        assert not is_sealed(file.fileno())


def test_a_frame_over_the_limit_is_not_sent(pair):
    with pytest.raises(TransportError, match="frame-too-large"):
        send_frame(pair[0], {"x": "y" * MAX_FRAME_BYTES})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "frame-too-large"),
        (b"\xff\xff\xff\xff", "frame-too-large"),
        (b"\x00\x00\x00\x03{]}", "frame-malformed"),
        (b"\x00\x00\x00\x02[]", "frame-malformed"),
        (b"\x00\x00\x00\x02\xff\xfe", "frame-malformed"),
        (b"\x00\x00\x00\x09{}", "peer-closed"),
        (b"\x00\x00", "peer-closed"),
        (b"", "peer-closed"),
    ],
)
def test_bytes_that_are_no_frame_are_refused(pair, data, code):
    pair[0].sendall(data)
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(TransportError) as caught:
        receive_frame(pair[1])
    assert caught.value.code == code


def test_more_files_than_allowed_are_refused_and_closed(pair):
    before = set(os.listdir("/proc/self/fd"))
    fds = [memory_file("x") for _ in range(6)]
    socket.send_fds(pair[0], [b"\x00\x00\x00\x02{}"], fds)
    for fd in fds:
        os.close(fd)
    with pytest.raises(TransportError, match="frame-malformed"):
        receive_frame(pair[1])
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_frame_that_is_not_complete_in_time_is_a_timeout(pair):
    pair[0].sendall(b"\x00\x00\x00\x09{}")
    with pytest.raises(TimeoutError):
        receive_frame(pair[1], deadline=time.monotonic() + 0.05)


def test_a_closed_peer_is_reported_when_sending(pair):
    pair[1].close()
    with pytest.raises(PeerClosed):
        send_frame(pair[0], {"op": "load"})
