# SPDX-License-Identifier: Apache-2.0
"""Names as the kernel's name tries hold them: the wire name in lower case, reversed. Pure.

``www.example.com`` is ``moc 3 elpmaxe 7 www 3 0``, each number one byte: reversed, a label is followed by its
length, so that the end of a suffix is the end of a label and a longest-prefix match is a match by labels.
``*.example.com`` ends with the 7. The name itself begins like that too, so the compiler gives it an entry of
its own (rules.py).

A label that goes on where the length was expected could be taken for the end of the suffix when that length
is also a character of names: 45 is '-', 48 to 57 are digits. A suffix whose first label is that long is
refused.
"""

from __future__ import annotations

from typing import Final

from sensor.policy.errors import PolicyRefused
from sensor.policy.layout import NAME_MAX

WILDCARD: Final = "*."
_MAX_LABEL: Final = 63
_END: Final = b"\0"
_LENGTHS: Final = [bytes((length,)) for length in range(_MAX_LABEL + 1)]
# Lengths that read as '-' or as a digit.
_AMBIGUOUS: Final = frozenset({45, *range(48, 58)})


def exact_key(name: str) -> bytes:
    """The key of a name itself, with its final NUL.

    Raises:
        PolicyRefused: It is no name, or too long for the kernel's rules.
    """
    return _reversed(name) + _END


def asked_key(name: str) -> bytes | None:
    """The key of a name that is asked for, the root (``.``) too; None: no rule matches such a name."""
    if name in {"", "."}:
        return _END
    try:
        return exact_key(name)
    except PolicyRefused:
        return None


def host_key(host: str) -> bytes | None:
    """The key of a TLS server name or HTTP host, which has no final dot; None: no rule matches it."""
    return None if not host or host.endswith(".") else asked_key(host)


def rule_key(rule: str) -> bytes:
    """The key of a rule: ``name``, ``*.suffix``, or ``*`` for every name.

    Raises:
        PolicyRefused: As :func:`exact_key`, or a suffix that labels could imitate.
    """
    if rule == "*":
        return b""
    if not rule.startswith(WILDCARD):
        return exact_key(rule)
    key = _reversed(rule[len(WILDCARD) :])
    if key[-1] in _AMBIGUOUS:
        raise PolicyRefused(
            f"name {rule!r}: a suffix cannot begin with a label of {key[-1]} characters, "
            "because longer labels look like it to the kernel",
            "list the names themselves",
        )
    return key


def is_exact(key: bytes) -> bool:
    """Whether a key is of a name itself, not of all names below."""
    return key.endswith(_END)


def own_name(key: bytes) -> bytes:
    """The exact key of the suffix of a wildcard's key."""
    return key + _END


def rule_text(key: bytes) -> str:
    """A key as a person writes the rule."""
    if not key:
        return "*"
    exact = is_exact(key)
    labels, rest = [], key[:-1] if exact else key
    while rest:
        length = rest[-1]
        labels.append(rest[-1 - length : -1][::-1].decode("ascii", "backslashreplace"))
        rest = rest[: -1 - length]
    return ("" if exact else WILDCARD) + ".".join(labels)


def _reversed(name: str) -> bytes:
    try:
        labels = name.removesuffix(".").lower().encode("ascii").split(b".")
        reversed_name = b"".join([label[::-1] + _LENGTHS[len(label)] for label in reversed(labels)])
    except UnicodeEncodeError as error:
        raise PolicyRefused(f"name {name[:80]!r} is not ASCII", "write it in its xn-- form") from error
    except IndexError as error:
        raise PolicyRefused(f"name {name[:80]!r}: a label has 1 to {_MAX_LABEL} characters") from error
    if b"" in labels or _END in reversed_name:
        raise PolicyRefused(f"name {name[:80]!r}: a label has 1 to {_MAX_LABEL} characters")
    if len(reversed_name) > NAME_MAX:
        raise PolicyRefused(
            f"name {name[:80]!r}... has {len(reversed_name)} bytes", f"rules take up to {NAME_MAX}"
        )
    return reversed_name
