"""Secrets taken out of text that people will read: log lines, and what a runner prints.

What looks like a secret is replaced, the name before it stays. A secret that looks like any other word is
not found; whoever knows its exact value (`clipwise.logs` knows those of the settings) replaces it too.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

MASK = "***"
LONGEST_KEY_BLOCK = 200
"""Lines after which a private key that never ends is taken for something else."""

ORDINARY = frozenset({"any", "bool", "bytes", "false", "int", "none", "null", "required", "str", "true"})
"""Values behind a secret's name that are none: constants, and the types of source lines in tracebacks."""


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """One kind of secret; without one of its `signs`, in lower case, a text is not searched for it."""

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]


def redacted(text: str) -> str:
    """Return `text` with its secrets replaced; the time that it takes grows with the length alone.

    >>> redacted("cannot connect to redis://:hunter2@cache:6379/0")
    'cannot connect to redis://:***@cache:6379/0'
    >>> redacted("step 3: loss=0.3, token=7")
    'step 3: loss=0.3, token=7'
    """
    lower = text.lower()
    for rule in _RULES:
        if any(sign in lower for sign in rule.signs):
            text = rule.pattern.sub(rule.replacement, text)
    return text


@final
class LineRedactor:
    """`redacted` for the lines of one stream: it remembers a private key that goes over several of them."""

    def __init__(self) -> None:
        self._left = 0

    def redacted(self, line: str) -> str:
        """Return the next line with its secrets replaced."""
        if self._left:
            ended = _KEY_ENDS in line
            self._left = 0 if ended else self._left - 1
            return redacted(line.partition(_KEY_ENDS)[2].partition("-----")[2]) if ended else MASK
        if _KEY_BEGINS.search(line) and _KEY_ENDS not in line:
            self._left = LONGEST_KEY_BLOCK
        return redacted(line)


_KEY_BEGINS = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_ENDS = "-----END"
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_NUMBER = re.compile(r"[-+.\d][-+.\d_eE%]*")


def _assignment(match: re.Match[str]) -> str:
    """Mask the value of `password=...` and the like, unless it is a number, a constant or source code."""
    bare = match["bare"]
    if bare is None:
        return f"{match['name']}{match['joint']}{match['quote']}{MASK}{match['quote']}"
    name = match["name"].lower()
    is_code = _CODE.fullmatch(bare) and (match["call"] or ("." in bare and bare.lower().endswith(name)))
    # Fencing tokens, and those of language models, are numbers or short.
    is_count = name == "token" and (len(bare) < 4 or _NUMBER.fullmatch(bare))
    if is_code or is_count or bare.lower() in ORDINARY or bare == MASK:
        return match[0]
    return f"{match['name']}{match['joint']}{match['open']}{MASK}{match['call']}"


_RULES = (
    _Rule(
        signs=("private key",),
        pattern=re.compile(_KEY_BEGINS.pattern + r".*?(?:-----END [A-Z0-9 ]{1,60}-----|\Z)", re.DOTALL),
        replacement=f"{MASK} (private key)",
    ),
    # A port with a path behind it is no password, whatever has an @ further on.
    _Rule(
        signs=("://",),
        pattern=re.compile(r"""(://[^\s/:@'"]{0,200}:)(?!\d{1,5}(?:[/?#]|$))[^\s'"]{1,300}@"""),
        replacement=rf"\1{MASK}@",
    ),
    _Rule(signs=("://",), pattern=re.compile(r"://[\w.~%-]{20,300}@"), replacement=f"://{MASK}@"),
    _Rule(
        signs=("authorization",),
        pattern=re.compile(
            r"""(authorization\\?["']?\s{0,4}[:=]\s{0,4}\\?["']?)(?:((?:basic|bearer|digest|token)\s{1,4})"""
            r"""|(?!basic|bearer|digest|token))[^\s"',;*\\]{4,2000}""",
            re.IGNORECASE,
        ),
        replacement=rf"\1\2{MASK}",
    ),
    _Rule(
        signs=("bearer",),
        pattern=re.compile(
            r"(\bbearer\s{1,4})(?:[\w.~+/=-]{20,2000}|(?=[a-z.~+/_=-]{0,40}\d)[\w.~+/=-]{6,2000})",
            re.IGNORECASE,
        ),
        replacement=rf"\1{MASK}",
    ),
    _Rule(
        signs=("cookie", "clipwise_session", "sign-in="),
        pattern=re.compile(
            r"(cookie:\s{0,4})[^\r\n]+|(clipwise_session_\d{1,5}=|#sign-in=)[^\s;,'\"]+", re.IGNORECASE
        ),
        replacement=rf"\1\2{MASK}",
    ),
    # PostgreSQL repeats the row that it refuses.
    _Rule(
        signs=("detail:",),
        pattern=re.compile(r"^(DETAIL:\s{1,4})\S[^\n]*", re.MULTILINE),
        replacement=rf"\1{MASK}",
    ),
    # Secrets that say themselves what they are.
    _Rule(
        signs=("cw_", "akia", "asia", "gh", "hf_", "sk-", "xox", "glpat-", "eyj"),
        pattern=re.compile(
            r"\b(cw_|gh[oprsu]_|github_pat_|hf_|sk-|xox[abeprs]-|glpat-)[\w-]{20,500}"
            r"|\b(AKIA|ASIA)[A-Z0-9]{16}\b"
            r"|\b(eyJ)[\w-]{8,4000}\.[\w-]{8,8000}(?:\.[\w-]{0,4000})?"
        ),
        replacement=rf"\1\2\3{MASK}",
    ),
    _Rule(
        signs=("passw", "passphrase", "pwd", "secret", "token", "key", "signature", "sig="),
        pattern=re.compile(
            r"""(?P<name>password|passwd|passphrase|pwd(?==[^/])|secret|token|x-amz-signature|(?<=[?&])sig"""
            r"""|(?:api|access|secret|private|account)[_-]?key)"""
            r"""(?P<joint>\\?["']?\s{0,4}(?:=>|:=|[:=])\s{0,4})"""
            r"""(?:(?P<quote>\\?["'])[^"'\n]{1,2000}(?P=quote)"""
            r"""|(?P<open>\\?["']?)(?P<bare>[^\s"',;&(){}<>\[\]\\]{1,2000})(?P<call>[(\[]?))""",
            re.IGNORECASE,
        ),
        replacement=_assignment,
    ),
)
