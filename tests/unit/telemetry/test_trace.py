"""Read the header of W3C Trace Context as its recommendation says."""

import re

import pytest

from service.telemetry.trace import new_trace, read_trace, trace_field

TRACE, PARENT = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
SOUND = b"00-%s-%s-01" % (TRACE, PARENT)


def test_a_sound_header_passes_unchanged():
    assert read_trace(SOUND) == SOUND.decode()
    assert read_trace(SOUND[:-2] + b"00").endswith("-00")


@pytest.mark.parametrize("more", [b"", b"-", b"-what-comes-later"])
def test_a_later_version_is_read_as_far_as_it_is_known(more):
    assert read_trace(b"cc" + SOUND[2:] + more) == SOUND.decode()


def test_unknown_flags_are_not_passed_on():
    assert read_trace(SOUND[:-2] + b"ff").endswith("-03")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        SOUND[:-1],
        SOUND + b"-more",  # version 00 has nothing more
        SOUND + b"0",
        b"cc" + SOUND[2:] + b".more",
        b"ff" + SOUND[2:],
        SOUND.upper(),
        SOUND.replace(TRACE, b"0" * 32),
        SOUND.replace(PARENT, b"0" * 16),
        SOUND.replace(b"-", b"_"),
        SOUND.replace(b"4", b"g", 1),
        b" " + SOUND,
        SOUND + b"\n",
        SOUND + b"," + SOUND,  # the header came twice
    ],
)
def test_a_malformed_header_is_ignored(value):
    assert read_trace(value) == ""


def test_a_new_trace_is_sound_and_another_each_time():
    traces = {new_trace() for _ in range(100)}
    assert len(traces) == 100
    assert all(read_trace(trace.encode()) == trace for trace in traces)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", new_trace())


def test_a_log_line_names_the_trace():
    assert trace_field(SOUND.decode()) == {"trace_id": TRACE.decode()}
    assert trace_field("") == {}
