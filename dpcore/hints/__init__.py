"""Type hints: the schema of a function, whether an output fits an input, and values made from text.

Pure.  Its one rule: what cannot be decided is not reported.  A hint that does
not resolve loses only itself, never its neighbours, and a question that has no
sure answer (an unbound TypeVar, a hint of a library nobody knows) is answered
as if the hint were missing.

Its floors, each of which stands on those below it:

=============  ==================================================
``reading``    the schema of a function (:func:`schema`)
``documents``  hints as JSON Schema
``values``     making values of text (:func:`convert`)
``streams``    who reads a stream, and how (:func:`stream_fits`)
``fitting``    does this output fit that input (:func:`fits`)
``apart``      taking hints apart, and writing them (:func:`shown`)
=============  ==================================================
"""

from dpcore.hints.apart import MISSING as MISSING
from dpcore.hints.apart import Missing as Missing
from dpcore.hints.apart import shown as shown
from dpcore.hints.fitting import fits as fits
from dpcore.hints.reading import Parameter as Parameter
from dpcore.hints.reading import Schema as Schema
from dpcore.hints.reading import schema as schema
from dpcore.hints.streams import accepts_none as accepts_none
from dpcore.hints.streams import item_hint as item_hint
from dpcore.hints.streams import stream_fits as stream_fits
from dpcore.hints.streams import stream_kind as stream_kind
from dpcore.hints.values import convert as convert

__all__ = (
    "MISSING",
    "Missing",
    "Parameter",
    "Schema",
    "accepts_none",
    "convert",
    "fits",
    "item_hint",
    "schema",
    "shown",
    "stream_fits",
    "stream_kind",
)
