"""Vamp's one-line conditions, made into our tree of matches.

    expr   := term { (or | '||' | '|') term }
    term   := factor { (and | '&&' | '&') factor }
    factor := (not | '!') factor | '(' expr ')' | atom
    atom   := user-agent CMP V | host CMP V | HAS cookie N | HAS header N | cookie N HAS V | header N HAS V

The release agent's spellings are read too: ``cookie: vamp exists``, ``header: user-agent contains Chrome``,
``cookie "n" exact "v"``. Words but ``not`` are read in either case.
"""

from __future__ import annotations

import re

from controlplane.peers.reading import Json
from controlplane.peers.writing import all_of, any_of

BROWSERS = {"chrome": "Chrome", "edge": "Edge", "firefox": "Firefox", "safari": "Safari"}
USER_AGENT = frozenset({"user-agent", "user.agent", "useragent"})
COMPARISONS = {
    "==": True, "=": True, "is": True, "has": True, "contains": True,
    "!=": False, "!": False, "not": False, "misses": False,
}  # fmt: skip
HOLDING = {"has": True, "contains": True, "misses": False}

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<acl><[^>]*>)|(?P<mark>\|\||&&|==|!=|[|&()=!:])|(?P<word>[^\s()|&=!:<>"']+))"""
)


class ConditionError(ValueError):
    """A condition that cannot be translated; the message says where."""


def condition(text: str) -> Json:
    """Return our tree for a condition.

    Raises:
        ConditionError: If it is not in the language, or has something that we cannot express.
    """
    parser = _Parser(text)
    tree = parser.any()
    parser.end()
    return tree


def _tokens(text: str) -> list[tuple[str, bool]]:
    """Return (word, whether it was in quotes)."""
    found, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ConditionError(f"{text!r}: cannot read {text[position:].strip()!r}")
        if match["acl"]:
            raise ConditionError(f"{match['acl']!r} is a rule of HAProxy itself; write the segment by hand")
        quoted = match["quoted"]
        found.append((quoted[1:-1], True) if quoted else (match["mark"] or match["word"], False))
        position = match.end()
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0

    def any(self) -> Json:
        terms = [self._all()]
        while self._accept("or", "||", "|"):
            terms.append(self._all())
        return any_of(terms)

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong("the end, 'and' or 'or'")

    def _all(self) -> Json:
        factors = [self._factor()]
        while self._accept("and", "&&", "&"):
            factors.append(self._factor())
        return all_of(factors)

    def _factor(self) -> Json:
        if self._accept("!", "not"):
            return {"not": self._factor()}
        if self._accept("("):
            tree = self.any()
            if not self._accept(")"):
                raise self._wrong("')'")
            return tree
        return self._atom()

    def _atom(self) -> Json:
        if self._accept(*USER_AGENT):
            return self._signed(_user_agent(*self._comparison()))
        if self._accept("host"):
            positive, value = self._comparison()
            return self._signed(({"host": value}, positive))
        if (holding := self._accept(*HOLDING)) is not None:
            kind = self._kind()
            return self._signed(({kind: {"name": self._value(kind), "present": True}}, HOLDING[holding]))
        return self._named(self._kind())

    def _named(self, kind: str) -> Json:
        self._accept(":")
        name = self._value(kind)
        if (how := self._accept("exists", "exact", *HOLDING)) is None:
            raise self._wrong("'has', 'contains', 'misses', 'exact' or 'exists'")
        if how == "exists":
            return {kind: {"name": name, "present": True}}
        if kind == "header" and name in USER_AGENT and how != "exact":
            return self._signed(_user_agent(HOLDING[how], self._word()))
        test = "equals" if how == "exact" else "contains"
        return self._signed(({kind: {"name": name, test: self._word()}}, HOLDING.get(how, True)))

    def _comparison(self) -> tuple[bool, str]:
        operator = self._accept(*COMPARISONS)
        if operator is None:
            raise self._wrong("a comparison such as '==', '!=', 'is', 'not', 'has' or 'misses'")
        return COMPARISONS[operator], self._word()

    def _kind(self) -> str:
        kind = self._accept("cookie", "header")
        if kind is None:
            raise self._wrong("'user-agent', 'host', 'cookie' or 'header'")
        return kind

    def _value(self, kind: str) -> str:
        word = self._word()
        return word.lower() if kind == "header" else word

    @staticmethod
    def _signed(atom: tuple[Json, bool]) -> Json:
        tree, positive = atom
        return tree if positive else {"not": tree}

    def _word(self) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at] in (("(", False), (")", False)):
            raise self._wrong("a value")
        self._at += 1
        return self._tokens[self._at - 1][0]

    def _accept(self, *words: str) -> str | None:
        if self._at < len(self._tokens):
            word, quoted = self._tokens[self._at]
            # 'not' alone is case-sensitive in the original.
            plain = word if word.lower() == "not" else word.lower()
            if not quoted and plain in words:
                self._at += 1
                return plain
        return None

    def _wrong(self, wanted: str) -> ConditionError:
        rest = " ".join(word for word, _ in self._tokens[self._at :]) or "the end"
        return ConditionError(f"{self._text!r}: found {rest!r} where {wanted} was expected")


def _user_agent(positive: bool, value: str) -> tuple[Json, bool]:
    browser = BROWSERS.get(value.lower())
    if browser:
        return {"user_agent": browser}, positive
    text = "MSIE" if value.lower() == "ie" else value
    return {"header": {"name": "user-agent", "contains": text}}, positive
