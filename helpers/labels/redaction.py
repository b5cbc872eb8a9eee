"""Take personal data and secrets out of a text before it is stored."""

import re
from collections.abc import Callable
from typing import Any

from helpers.store.files import WorkbookError

_SECRETS = [
    (re.compile(pattern, flags), replacement)
    for pattern, flags, replacement in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S, "[key]"),
        (r"\bsk-(?:(?=[\w-]*\d)[\w-]{12,}|\w{20,})", 0, "[key]"),
        (r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|AIza)[\w-]{16,}|\bxox[a-z]-[\w-]{8,}", 0, "[key]"),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*", 0, "[key]"),
        (r"(\bbearer\s+)(?:(?=\S*(?:\d|\.\w))[\w.~+/=-]{8,}|[\w.~+/=-]{24,})", re.I, r"\1[key]"),
        (r"((?:password|passwd|pwd)[\"']?\s*(?:=|:(?=\s*\S*\d))\s*[\"']?)[^\s\"'&,;)\[]{4,}", re.I, r"\1[key]"),
        (r"((?:key|token|secret)[\"']?\s*[=:]\s*[\"']?)(?=[\w+/=-]{0,200}\d)[\w+/=-]{16,}", re.I, r"\1[key]"),
    )
]
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}\b(?!\()")  # not the product a@b.sum()
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,30}){1,9}")
_CARD = re.compile(r"(?<![\w.,+-])[2-9]\d{2,18}(?:[ -]\d{3,19}){0,6}")  # no card begins with 1, Unix times do
_PHONES = re.compile(
    r"""(?<![\w.])\+[1-9](?:[ ./()-]{0,3}\d){8,14}(?!\d)                                # +49 (0)30 1234567
      | (?<![\w.+])00[1-9](?:[ ./()-]{0,3}\d){9,13}(?!\d)                               # 0049 30 1234567
      | (?<![\w.(-])(?:1[ .-])?(?:\([2-9]\d\d\)[ ]?\d{3}[ .-]|[2-9]\d\d([.-])\d{3}\1)\d{4}(?!\w|[.-]\d)  # 415-555-2671
      | (?<![\w.,:/(+-])(?!\d\d?[/-]\d\d?[/-]\d|(?:0\d+[ ]){2}0)(?=[\d ()/-]{0,20}[2-9])
        \(?0[1-9](?:[ /()-]{0,2}\d){7,10}(?!\w|[.,]\d)                                  # 020 7946 0958, 0171/2345678
      | (?<![\w.])0[1-9](?:\.\d\d){4}(?![.]?\d)                                         # 01.23.45.67.89
    """,
    re.X,
)
_NUMBER_AFTER_WORD = re.compile(
    r"(\b(?:(?:tele)?phone|tel|mobile|fax|whatsapp|(?:call|text|ring|reach) me)\b"
    r"(?: number| no\b| is| at| on|[:.=#\s])*)"
    r"\(?\d(?:[ .()-]{0,2}\d){6,14}(?!\d)",
    re.I,
)


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()][::-1]
    return (
        13 <= len(digits) <= 19
        and sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0
    )


def _iban(text: str) -> bool:
    code = text.replace(" ", "")
    return 15 <= len(code) <= 34 and int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _replace_valid(text: str, pattern: re.Pattern, valid: Callable[[str], bool], label: str) -> str:
    """Put ``label`` in the place of each match, or beginning of a match, whose check digits are right.

    A match may run on into other numbers, so its longest valid beginning is replaced.
    """
    position = 0
    while match := pattern.search(text, position):
        ends = [word.end() for word in re.compile(r"\w+").finditer(text, match.start(), match.end())]
        end = next((e for e in reversed(ends) if valid(text[match.start() : e])), None)
        if end is None:
            position = ends[0]
        else:
            text, position = text[: match.start()] + label + text[end:], match.start() + len(label)
    return text


def redact(text: str) -> str:
    """The text with ``[email]``, ``[phone]``, ``[card]``, ``[iban]`` or ``[key]`` for personal data and secrets.

    Cards and IBANs are recognised by their check digits; secrets by their prefix, or by ``key=``, ``token=``,
    ``password=`` or ``Bearer`` before them; phone numbers by a +, 00 or 0 at the beginning, by the forms (415) 555-2671
    and 415-555-2671, or by a word such as "tel" or "call me" before them. Bare figures (200000, 4155552671) stay, as do
    names and addresses: pass your own hook where that is not enough.
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = _EMAIL.sub("[email]", text)
    text = _replace_valid(text, _IBAN, _iban, "[iban]")
    text = _replace_valid(text, _CARD, _luhn, "[card]")
    return _NUMBER_AFTER_WORD.sub(r"\1[phone]", _PHONES.sub("[phone]", text))


def apply_hook(hook: Callable[[str], str], text: Any) -> str:
    """``hook(text)``, the text to store.

    Raises WorkbookError where ``text`` is no string, or where the hook fails or gives no text, so that nothing is
    stored unredacted.
    """
    if not isinstance(text, str):
        raise WorkbookError(
            f"The search log stores text, not {type(text).__name__}: pass query, session and detail as strings."
        )
    try:
        cleaned = hook(text)
    except Exception as error:  # whatever a person's own hook raises
        raise WorkbookError(
            f"The redaction hook failed ({type(error).__name__}): mend it; nothing was stored."
        ) from error
    if not isinstance(cleaned, str):
        raise WorkbookError(
            f"The redaction hook returned {type(cleaned).__name__}: "
            "let it return the text to store; nothing was stored."
        )
    return cleaned
