"""Frames between the program and a worker: how long, what kind, which job."""

from __future__ import annotations

import struct

__all__ = (
    "BEGUN",
    "DEFINE",
    "DONE",
    "DROP",
    "FORGET",
    "HELLO",
    "HUNG_UP",
    "JOB",
    "LOG",
    "MESSAGE",
    "OUTCOME",
    "PUBLISH",
    "PUBLISHED",
    "READ",
    "READY",
    "TOKEN",
    "Cut",
    "frame",
)

READ = 1 << 16  # bytes that are read at once: more would be mapped anew each time

# From the program.
HELLO = 1  # how to be as the program is: path, folder, script, surroundings
DEFINE = 2  # something that many jobs need, under a number
JOB = 3  # an order; it is the worker's once it has read a token
DROP = 4  # a job was taken back
FORGET = 13  # what was sent under a number, and no job needs any more
PUBLISHED = 12  # what became of what it wanted to publish
# From the worker.
READY = 5
BEGUN = 6  # only of jobs with a timeout; of others it follows from the end of the one before
DONE = 7  # it succeeded, and its value is where it belongs
OUTCOME = 8  # it ended otherwise
LOG = 10
PUBLISH = 11  # an event, at once
# Both ways: what the runner and a running job say to each other.
MESSAGE = 9

# Of this side: nothing more will be said.
HUNG_UP = 0

# For each job that a worker may begin there is one in a pipe: how many jobs had been taken back when it was written.
TOKEN = struct.Struct("!Q")

_HEAD = struct.Struct("!IBI")
Frame = tuple[int, int, bytes]


def frame(kind: int, number: int = 0, body: bytes = b"") -> bytes:
    """Return a frame of *kind* for the job, or whatever else has a *number*."""
    return _HEAD.pack(len(body), kind, number) + body


class Cut:
    """Cuts what arrives into frames.

    >>> cut = Cut()
    >>> said = frame(JOB, 7, b"order")
    >>> cut.cut(said[:5]), cut.cut(said[5:])
    ([], [(3, 7, b'order')])
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def cut(self, data: bytes) -> list[Frame]:
        """Return the frames that are whole now."""
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < _HEAD.size or len(rest) < _HEAD.size + _HEAD.unpack_from(rest)[0]:
                return []  # a large frame is not copied again with each of its pieces
            data = bytes(rest)
            rest.clear()
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            size, kind, number = _HEAD.unpack_from(data, at)
            if end - at - _HEAD.size < size:
                break
            at += _HEAD.size + size
            frames.append((kind, number, data[at - size : at]))
        if at < end:
            rest += data[at:]
        return frames
