"""A chat in which two people talk faster than one listens, and somebody else listens only when all is said.

What is said waits for each listener by itself.  For ``slow`` three things may wait, and then whoever talks waits
too: that is backpressure.  For ``away``, which nobody waits for, the oldest makes room, and what is dropped is
counted.

Prints::

    ann: hello / anybody here? / I have cake / and tea / ah well
    ben: hello / yes! / what kind? / coming / save me some
    slow heard 10 of 10 and missed 0; at most 3 were said and not heard
    away heard 3 of 10 and missed 7
"""

from collections import defaultdict

import anyio

from dpcore import App, Subscription

ROOM = 3
SAID = {
    "ann": ["hello", "anybody here?", "I have cake", "and tea", "ah well"],
    "ben": ["hello", "yes!", "what kind?", "coming", "save me some"],
}


class Chat:
    """What was said, and how much of it was not heard yet."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.crowded = anyio.Event()
        self.heard: dict[str, list[str]] = defaultdict(list)
        self.unheard = self.most = 0

    async def talk(self, name: str) -> None:
        """Say all there is to say; where there is no room for more, this waits."""
        for text in SAID[name]:
            await self.app.publish(f"chat.{name}", text)
            self.unheard += 1
            self.most = max(self.most, self.unheard)
            if self.unheard == ROOM:
                self.crowded.set()
        await self.app.complete(f"chat.{name}")  # so that whoever listens need not wait for more

    async def listen(self, slow: Subscription) -> None:
        """Begin when nothing more can be said, and hear one thing after the other."""
        await self.crowded.wait()
        async for event in slow:
            self.unheard -= 1
            self.heard[event.topic.removeprefix("chat.")].append(event.data)


async def main() -> None:
    """Have all of them talk and listen."""
    topics = [f"chat.{name}" for name in SAID]
    said = sum(map(len, SAID.values()))
    async with (
        App() as app,
        app.subscribe(*topics, buffer=ROOM, overflow="block") as slow,
        app.subscribe(*topics, buffer=ROOM, overflow="drop_oldest") as away,
    ):
        chat = Chat(app)
        async with anyio.create_task_group() as everybody:
            everybody.start_soon(chat.listen, slow)
            for name in SAID:
                everybody.start_soon(chat.talk, name)
        for name in SAID:
            print(f"{name}: {' / '.join(chat.heard[name])}")
        heard = sum(map(len, chat.heard.values()))
        print(f"slow heard {heard} of {said} and missed {slow.dropped}; at most {chat.most} were said and not heard")
        late = [event.data async for event in away]
        print(f"away heard {len(late)} of {said} and missed {away.dropped}")


if __name__ == "__main__":
    anyio.run(main)
