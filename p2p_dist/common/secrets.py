"""Mask secrets of known shapes: records of runs are readable by all, and sent to others."""

from __future__ import annotations

import re

MASK = "***"

_NAMES = r"(?i:token|passw(?:or)?d|secret|credential|api[-_]?key|access[-_]?key|private[-_]?key)"
_OPTION = re.compile(rf"--?[\w.-]*{_NAMES}[\w.-]*", re.IGNORECASE)
_SECRETS = tuple(
    (re.compile(pattern, re.DOTALL), instead)
    for pattern, instead in (
        # Known formats of keys: Hugging Face, AWS, GitHub, GitLab, Slack, OpenAI; and JSON web tokens.
        (r"\bhf_[A-Za-z0-9]{8,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bgh[opsur]_\w{16,}|\bgithub_pat_\w{16,}", MASK),
        (r"\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{8,}|\bsk-[\w-]{16,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", MASK),
        (r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", MASK),
        (r"(://)[^/\s@'\"]+@", rf"\1{MASK}@"),
        # What signs or opens an address, in its query.
        (r"([?&](?i:[\w-]*signature|sig|key|auth|code)=)[^&\s'\"]+", rf"\1{MASK}"),
        (r"(\b(?i:Bearer|Authorization:\s*Basic)\s+)[\w.~+/=-]{8,}", rf"\1{MASK}"),
        # NAME=value, name: "value" and --name value, if the name is that of a secret. Each search begins at the beginning of a
        # word: from each of its letters, a word of 50 kB in a change of the code would take minutes.
        (rf"((?<![\w.-])[\w.-]*{_NAMES}[\w.-]*[\"']?[ \t]*[=:][ \t]*)(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;)\"']+)", rf"\1{MASK}"),
        (rf"((?<![\w.-])--?[\w.-]*{_NAMES}[\w.-]*[ \t]+)(\"[^\"\n]*\"|'[^'\n]*'|[^\s-][^\s]*)", rf"\1{MASK}"),
    )
)


def mask(text: str) -> str:
    """Mask secrets in a text: keys of known services, credentials in a URL, values with a name such as token."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def mask_command(words: list[str]) -> list[str]:
    """Mask secrets in a command line, including the values of options with a name such as --token."""
    before = ["", *words[:-1]]
    return [
        MASK if _OPTION.fullmatch(last) and not word.startswith("--") else mask(word)
        for last, word in zip(before, words, strict=True)
    ]
