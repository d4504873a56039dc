"""Reads EDN: the part of Clojure's data notation that histories use.

Keywords and symbols become strings without their colon, vectors and lists become lists, sets become lists too
(their order means nothing), maps become dicts whose keys are frozen. Tags are dropped and what they tag is kept.
"""

from __future__ import annotations

import re

import msgspec

from jepsen_like.history import HistoryError
from jepsen_like.values import freeze

_TOKEN = re.compile(
    r"""[\s,]*(?:;[^\n]*[\s,]*)*(?:
        (?P<open>\#\{|[\[({])
      | (?P<close>[\])}])
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<discard>\#_)
      | (?P<tag>\#[A-Za-z][^\s,()\[\]{}"]*)
      | (?P<char>\\(?:newline|space|tab|return|formfeed|backspace|u[0-9A-Fa-f]{4}|.))
      | (?P<atom>[^\s,()\[\]{}";]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9]\d*)N?\Z")
_FLOAT = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?M?\Z")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"'}
_CHARACTERS = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r"}
_CLOSING = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_NAMED: dict[str, object] = {
    "nil": None,
    "true": True,
    "false": False,
    "##Inf": float("inf"),
    "##-Inf": float("-inf"),
    "##NaN": float("nan"),
}
DEPTH_MAX = 200


def read_all(text: str) -> list[object]:
    """Every value in the text, one after the other."""
    quick = _as_json(text)
    if quick is not None:
        return quick
    reader = _Reader(text)
    values: list[object] = []
    while not reader.at_end():
        values.append(reader.value(0))
    return values


_ASIDE = re.compile(r'("(?:[^"\\]|\\.)*"|;[^\n]*)', re.DOTALL)
_TAG = re.compile(r"#[A-Za-z][^\s,()\[\]{}\"]*")
_KEYWORD = re.compile(r":([^\s,()\[\]{}\":;]+)")
_NIL = re.compile(r"(?<![^\s\[,({])nil(?![^\s\]),}])")
_SPACE = re.compile(r"[\s,]+")
_MAP = "%map"


def _as_json(text: str) -> list[object] | None:
    """The same, by way of JSON and many times faster; None where the text has more than JSON can say.

    A map becomes a list that begins with a mark, for its keys may be anything.
    """
    if ";" in text:
        text = _ASIDE.sub(lambda m: m[0] if m[0][0] == '"' else " ", text)
    parts = _ASIDE.split(text)
    for i in range(0, len(parts), 2):
        part = parts[i]
        if "\\" in part or "#_" in part or "##" in part or _MAP in part:
            return None
        part = _TAG.sub(" ", part).replace("#{", "[").replace("{", f'["{_MAP}" ')
        part = part.replace("(", "[").replace(")", "]").replace("}", "]").replace("][", "] [")
        part = _KEYWORD.sub(lambda m: f'"{m[1]}"', part)
        part = _SPACE.sub(",", _NIL.sub("null", part))
        parts[i] = part.replace("[,", "[").replace(",]", "]")
    whole = "".join(parts).strip(",")
    try:
        values = msgspec.json.decode(f"[{whole}]", type=list[object])
    except (msgspec.DecodeError, RecursionError):
        return None
    return [_unmark(value) for value in values]


def _unmark(value: object) -> object:
    if not isinstance(value, list) or not value:
        return value
    if value[0] != _MAP:
        if type(value[0]) is list or any(type(v) is list for v in value):
            return [_unmark(v) for v in value]
        return value
    if len(value) % 2 == 0:
        raise HistoryError("a map has a key without a value")
    names = (name if type(name) is str else freeze(name) for name in value[1::2])
    return {
        name: _unmark(entry) if type(entry) is list else entry
        for name, entry in zip(names, value[2::2], strict=True)
    }


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def at_end(self) -> bool:
        """Whether only space, comments and discarded forms are left."""
        while True:
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                rest = re.sub(r";[^\n]*", "", self._text[self._at :])
                if rest.strip(" \t\r\n,\f"):
                    raise self._error("cannot read")
                return True
            if match.lastgroup != "discard":
                return False
            self._at = match.end()
            self.value(1)

    def value(self, depth: int) -> object:
        if depth > DEPTH_MAX:
            raise self._error("nested too deeply")
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._error("a value is missing")
        before, self._at = self._at, match.end()
        kind = match.lastgroup
        assert kind is not None
        token = match.group(kind)
        if kind == "atom":
            return self._atom(token)
        if kind == "open":
            return self._collection(token, depth)
        if kind == "string":
            return _unescape(token)
        if kind == "tag":
            return self.value(depth + 1)
        if kind == "discard":
            self.value(depth + 1)
            return self.value(depth + 1)
        if kind == "char":
            name = token[1:]
            if len(name) == 5 and name[0] == "u":
                return chr(int(name[1:], 16))
            return _CHARACTERS.get(name, name)
        self._at = before
        raise self._error(f"{token!r} closes nothing")

    def _collection(self, opening: str, depth: int) -> object:
        items: list[object] = []
        closing = _CLOSING[opening]
        while True:
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                raise self._error(f"{opening!r} is never closed")
            if match.lastgroup == "close":
                if match.group("close") != closing:
                    raise self._error(f"{opening!r} is closed by {match.group('close')!r}")
                self._at = match.end()
                break
            if match.lastgroup == "discard":
                self._at = match.end()
                self.value(depth + 1)
                continue
            items.append(self.value(depth + 1))
        if opening != "{":
            return items
        if len(items) % 2:
            raise self._error("a map has a key without a value")
        return {freeze(items[i]): items[i + 1] for i in range(0, len(items), 2)}

    def _atom(self, token: str) -> object:
        if token[0] == ":":
            return token[1:]
        if token in _NAMED:
            return _NAMED[token]
        if _INTEGER.match(token):
            return int(token.rstrip("N"))
        if _FLOAT.match(token):
            return float(token.rstrip("M"))
        if token[0].isdigit():
            raise self._error(f"{token!r} is not a number")
        return token

    def _error(self, what: str) -> HistoryError:
        line = self._text.count("\n", 0, self._at) + 1
        return HistoryError(f"line {line}: {what}")


def _unescape(token: str) -> str:
    body = token[1:-1]
    if "\\" not in body:
        return body
    return re.sub(
        r"\\(u[0-9A-Fa-f]{4}|.)",
        lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else _ESCAPES.get(m[1], m[1]),
        body,
        flags=re.DOTALL,
    )
