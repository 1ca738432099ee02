"""Posts: what the jobs of a run with live streams say to it, and are told.

Jobs say it from threads or from the event loop, and never wait for anybody to hear
it; the run hears it on the event loop.  What it has to say waits in a
:class:`Post` until the job takes it out.  Nothing passes for an attempt that is over.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, cast

import anyio
from anyio import to_thread
from anyio.lowlevel import EventLoopToken

from dpcore.jobs import Enough, Items, Message
from dpcore.live import LiveRun
from dpcore.runs import Start
from dpcore.words import LONGEST_TEXT, printed

__all__ = ("Post", "Posts")

_log = logging.getLogger("dpcore.posts")

_PATIENCE = 1.0  # seconds that a producer may take to end once nobody wants more of it


class Posts:
    """The posts of all jobs of one run, and how these are stopped.

    *heard* is called when something was heard, and ``later(seconds, call, ...)`` has something called later.
    """

    def __init__(
        self, run: LiveRun, token: EventLoopToken, heard: Callable[[], None], later: Callable[..., None]
    ) -> None:
        self._run, self._heard, self._later = run, heard, later
        self._thread = threading.get_ident()
        self._scopes: dict[Start, anyio.CancelScope] = {}
        self._posts: dict[Start, Post] = {}
        self._said: deque[tuple[Post, Message]] = deque()  # in threads
        self._is_told = False  # that there is something in it
        self._soon = _soon(token)
        # What a thread makes the loop do has that thread's context; jobs begun from there must have the run's.
        self._hear_here = partial(copy_context().run, self._hear_threads)

    def open(self, start: Start, scope: anyio.CancelScope, *, talks: bool) -> Post | None:
        """Take in an attempt that begins; return where it is told something, if it *talks*."""
        self._scopes[start] = scope
        if not talks:
            return None
        post = self._posts[start] = Post(self, start)
        return post

    def close(self, start: Start) -> None:
        """Forget an attempt that is over."""
        self._scopes.pop(start, None)
        self._posts.pop(start, None)

    def hear(self, post: Post, message: Message) -> None:
        """Take in what a job says; callable from any thread, and never waits."""
        if threading.get_ident() == self._thread:
            self._hear_all([(post, message)])
            return
        self._said.append((post, message))
        if not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the loop is gone, and with it everybody who would hear
                self._soon(self._hear_here)

    def _hear_threads(self) -> None:
        self._is_told = False  # first: what is said from here on is told again
        said = []
        while self._said:
            said.append(self._said.popleft())
        self._hear_all(said)

    def _hear_all(self, said: Sequence[tuple[Post, Message]]) -> None:
        for post, message in said:
            if not post.closed:
                self._run.hear(post.start, message)
        self.tell()
        self._heard()

    def tell(self) -> None:
        """Tell jobs what the run says to them, and the log what it foresees."""
        for name, outcome in self._run.failing:
            words = "task %r of run %s has failed, which counts when what it reads has ended: %s"
            _log.warning(words, name, self._run.run_id, printed(outcome.error, LONGEST_TEXT))
        self._run.failing.clear()
        says, self._run.says = self._run.says, []
        for start, message in says:
            post = self._posts.get(start)
            if post is not None:
                post.put(message)
                if isinstance(message, Enough):  # which is seen at its next item, and there may be none
                    self._later(_PATIENCE, self._stop, start)

    def stop_void(self) -> None:
        """Stop the jobs whose work has come to nothing."""
        for start in self._run.void:
            self._stop(start)
        self._run.void.clear()

    def _stop(self, start: Start) -> None:
        scope = self._scopes.get(start)
        if scope is not None:
            scope.cancel()

    def kept(self, start: Start) -> Items | None:
        """Return what stays of what an attempt has stored though it was stopped."""
        return self._run.kept(start)

    @property
    def waiting(self) -> bool:
        """Whether something is left to tell or to stop."""
        return bool(self._run.says or self._run.void or self._run.failing)


class Post:
    """What is said to one running job, for it to take out in a thread or on an event loop."""

    __slots__ = ("_condition", "_event", "_posts", "_said", "_thread", "closed", "start")

    def __init__(self, posts: Posts, start: Start) -> None:
        self._posts, self.start = posts, start
        self._said: deque[Message] = deque()
        self._condition = threading.Condition()
        self._event = anyio.Event()
        self._thread = threading.get_ident()
        self.closed = False

    def hear(self, message: Message) -> None:
        """Take in what the job says, unless it is over; callable from any thread, and never waits."""
        if not self.closed:
            self._posts.hear(self, message)

    @property
    def kept(self) -> Items | None:
        """What stays of what the job has stored though it was stopped: all, if its readers had enough of it."""
        return self._posts.kept(self.start)

    def put(self, message: Message) -> None:
        """Say *message*; on the runner's event loop."""
        with self._condition:
            self._said.append(message)
            self._condition.notify_all()
        self._event.set()

    def close(self) -> None:
        """Let nobody wait any more: the job is over, or was given up."""
        with self._condition:
            self.closed = True
            self._condition.notify_all()
        self._event.set()

    async def receive(self) -> Message:
        """Wait for the next message on an event loop."""
        if threading.get_ident() != self._thread:  # a loop of the job's own
            return cast(Message, await to_thread.run_sync(self.receive_sync))
        while (message := self.receive_sync(wait=False)) is None:
            if self._event.is_set():
                self._event = anyio.Event()
            else:
                await self._event.wait()
        return message

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        """Wait for the next message in a thread."""
        with self._condition:
            while not self._said:
                if self.closed:
                    raise RuntimeError("the job was given up, so there is nothing more to hear")
                if not wait:
                    return None
                self._condition.wait()
            return self._said.popleft()


def _soon(token: EventLoopToken) -> Callable[[Callable[[], None]], object]:
    """Return what has an event loop call something soon, told from any thread and without waiting."""
    native: Any = token.native_token
    soon: Callable[[Callable[[], None]], object] = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
    return soon
