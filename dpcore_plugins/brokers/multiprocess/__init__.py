"""Events between the processes of one machine, without a server.

One process has the hub: a thread with the :class:`~dpcore.Exchange` in its memory, which
listens on a Unix socket.  Every App, that of the same process too, is a peer of it.

============  ==========================================================================
``broker``    the broker as an App has it; ``arrival``: how it comes in
``thread``    the hub in a thread of its own
``peers``     at the hub: strangers who must show the key, peers who publish and read
``hub``       the exchange, who is connected, and what is done when a turn ends
``feeds``     subscriptions as a peer has them; ``outlets``: as the hub has them
``link``      a peer's end of its connection; ``flight``: how much of it publishes at once
``sheaves``   events that the hub sends on as they came
``places``    socket, lock and key, and who may have them
``wire``      what is said, and how two come to trust each other; waits for nothing
============  ==========================================================================
"""

from dpcore_plugins.brokers.multiprocess.broker import MultiprocessBroker

__all__ = ("MultiprocessBroker",)
