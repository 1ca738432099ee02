"""What a task takes and gives as JSON Schema, and what is wrong with its hints.

Prints::

    day       {'type': 'string', 'format': 'date'}, required
    currency  {'enum': ['EUR', 'USD'], 'default': 'EUR'}
    limit     {'type': 'integer', 'exclusiveMinimum': 0, 'default': 100}
    gives     object with id (integer), lines (array)
    task 'broken': the hint 'Ordr' of the result does not resolve: NameError: name 'Ordr' is not defined
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from msgspec import Meta

from dpcore import Registry

tasks = Registry()


@dataclass
class Order:
    """One order."""

    id: int
    lines: list[str]


@tasks.task
def orders(
    day: date, currency: Literal["EUR", "USD"] = "EUR", limit: Annotated[int, Meta(gt=0)] = 100
) -> Iterator[Order]:
    """Stream the orders of a day; the schema of the result is that of one of them."""
    yield Order(day.year, [f"tea in {currency}"][:limit])


@tasks.task
def broken(day: date) -> "Ordr":  # type: ignore[name-defined]  # noqa: F821
    """Return something whose class is misspelt: only this hint is lost."""


if __name__ == "__main__":
    taken, given = tasks["orders"].schema.parameters_json_schema(), tasks["orders"].schema.result_json_schema()
    for name, schema in taken["properties"].items():
        print(f"{name:9} {schema}{', required' if name in taken['required'] else ''}")
    order = given["$defs"]["Order"]
    fields = [f"{name} ({schema['type']})" for name, schema in order["properties"].items()]
    print(f"gives     {order['type']} with {', '.join(fields)}")
    print(*tasks.problems(), sep="\n")
