"""Topics: how they are written, which patterns select them, and who is reached by one.

Pure.  A topic is segments joined by dots (``orders.eu.paid``).  A pattern is a
topic with wildcards, or several of them joined by ``|``:

=========  =============================================================================
``*``      exactly one segment; within a segment any run of characters, also none
``**``     zero or more segments; always a whole segment, anywhere
``a|b``    either; blanks around it mean nothing
=========  =============================================================================

A topic that begins with ``$`` is the platform's own: only an alternative that begins
with ``$`` selects it (``$run.**``, ``$*.started``), whatever wildcards another has.  Elsewhere
``$`` is a character like any.

No pattern is slow.  Whether one selects a topic is told in time proportional to the length
of the pattern times that of the topic, at most, and nothing here recurses.

Its floors, each of which stands on those below it:

============  =================================================================
``routes``    whom a topic reaches (:class:`Routes`)
``tree``      the segments of patterns as a tree, which a topic walks
``patterns``  the grammar; whether a pattern selects a topic (:class:`Pattern`)
============  =================================================================
"""

from dpcore.topics.patterns import Pattern as Pattern
from dpcore.topics.patterns import check_pattern as check_pattern
from dpcore.topics.patterns import check_topic as check_topic
from dpcore.topics.patterns import is_literal as is_literal
from dpcore.topics.patterns import matches as matches
from dpcore.topics.routes import Routes as Routes

__all__ = ("Pattern", "Routes", "check_pattern", "check_topic", "is_literal", "matches")
