"""How values are named in a sentence: printed whatever they are, listed within bounds, with the name that was meant."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ("LONGEST_TEXT", "Shown", "counted", "cut", "excerpt", "listed", "nearest", "printable", "printed")

LONGEST_TEXT = 64 * 1024  # characters of what an error says, or of its traceback, that are kept

_MOST_NAMES = 500  # that are compared letter by letter, at 20 us each
_LONGEST_NAME = 200
_NOTICE = 64  # characters, in which it fits how many others are left out
_SPACES = "\u00a0\u2007\u202f\u3000"  # they are shown as such, though Python calls them not printable


def nearest(name: object, known: Iterable[object]) -> str:
    """Say which of the *known* names was probably meant, as the end of a sentence.

    Whatever the *name* and however many are known, it answers soon, and raises nothing.

    >>> nearest("ordrs", ["orders", "total"])
    "; did you mean 'orders'?"
    >>> nearest("zzz", ["orders"]), nearest(3, ["orders"])
    ('', '')
    """
    if not isinstance(name, str) or isinstance(name, Shown) or len(name) > _LONGEST_NAME:
        return ""
    names = [one for one in known if isinstance(one, str) and len(one) <= _LONGEST_NAME]
    import difflib  # noqa: PLC0415  (where nothing is misspelt, nobody needs it)

    if len(names) > _MOST_NAMES:
        turned = name[::-1]  # whoever mistypes a name gets its beginning or its end right
        names.sort(key=lambda one: _shared(name, one) + _shared(turned, one[::-1]), reverse=True)
        del names[_MOST_NAMES:]
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _shared(one: str, other: str) -> int:
    """Count the characters that two names begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((count for count, (mine, yours) in enumerate(pairs) if mine != yours), min(len(one), len(other)))


def printed(value: object, most: int = 200) -> str:
    """Print *value* by repr, cut after *most* characters; one whose repr fails, by its type.

    >>> printed("x"), printed("x" * 50, most=10)
    ("'x'", "'xxxxxxxxx... (52 characters)")
    """
    if isinstance(value, Shown):
        return str(value)
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  (to say what is wrong with a value must not fail because of it)
        return f"<{type(value).__qualname__} that cannot be printed>"
    return cut(text, most)


def cut(text: str, most: int) -> str:
    """Return *text* up to *most* characters, and how many it has.

    >>> cut("abc", 3), cut("abcd", 3)
    ('abc', 'abc... (4 characters)')
    """
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def excerpt(text: str, most: int = LONGEST_TEXT) -> str:
    """Return *text*; of one with more than *most* characters its beginning and its end, and how many are left out.

    >>> excerpt("abc"), excerpt("a" * 500 + "z" * 500, most=70)
    ('abc', 'aaa [... 994 characters are left out ...] zzz')
    """
    if len(text) <= most:
        return text
    left_out = len(text) - max(most - _NOTICE, 0)
    head = (len(text) - left_out) // 2
    return f"{text[:head]} [... {left_out:,} characters are left out ...] {text[head + left_out :]}"


def listed(names: Iterable[object], most: int = 12) -> str:
    """List names by repr, the first *most* of them, and how many there are beside.

    >>> listed(["a", "b"]), listed([]), listed(["a", "b", "c"], most=2)
    ("'a', 'b'", 'none', "'a', 'b' and 1 more")
    """
    every = [*names]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(map(printed, every[:most])) + rest or "none"


def counted(number: int, word: str) -> str:
    """Write a number with its word.

    >>> counted(1, "task"), counted(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def printable(text: str, *, only_ascii: bool = False, keep: str = "") -> str:
    """Return *text* as it can be shown: what a terminal would obey is escaped, but for the letters to *keep*.

    >>> print(printable("no\x1b[2J"), printable("日\t", only_ascii=True, keep="\t").rstrip())
    no\\x1b[2J \\u65e5
    """
    if text.isprintable() and (text.isascii() or not only_ascii):
        return text
    return "".join(
        letter
        if (letter.isprintable() or letter in keep or letter in _SPACES) and (letter.isascii() or not only_ascii)
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


class Shown(str):
    """A value that was printed before it travelled, or words in its place; its repr is the text itself.

    >>> Shown("every task")
    every task
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[object, ...]:
        return (Shown, (str(self),))
