# SPDX-License-Identifier: Apache-2.0
"""What an expression needs is in whatever it matches."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_apps.sigma.literals import required_literal


@pytest.mark.parametrize(
    ("expression", "literal"),
    [
        (r"net_user3\s+-a\s*[0-9]{2,}", "net_user3"),
        (r"/dev/tcp/[^ ]+", "/dev/tcp/"),
        ("(?i)CURL.*HTTP", "curl"),
        ("curls?", "curl"),
        ("curls+", "curls"),
        ("curls{0}x", "curl"),
        ("a|curl", ""),
        ("(a|b)curl", "curl"),
        ("[]|]curl", "curl"),
        (r"[\]|]curl", "curl"),
        ("[[:alpha:]|]curl", "curl"),
        (r"\(curl\)", "(curl)"),
        (r"cu\x72l", ""),
        (r"a\bcurl", "curl"),
        (".*", ""),
        ("aa{|b", ""),
        ("", ""),
    ],
)
def test_literals(expression: str, literal: str) -> None:
    assert required_literal(expression) == literal


_PART = st.sampled_from([
    "a", "b", "B", "ab", "\\.", "\\s", "\\d", ".", "a?", "b*", "a+", "[ab]", "[^a]", "[]a]", "(a|b)",
    "(?:ab)?", "a{2}", "b{0,1}", "a{1,}", "^", "$", "\\bb", "|", "(a(b|[)]))", "a??", "(?i:a)", "\\-", "{",
])  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(["", "(?i)", "(?s)(?m)"]),
    st.lists(_PART, min_size=1, max_size=6),
    st.text("abB. )-{1", max_size=8),
)
def test_what_matches_has_the_literal(flags: str, parts: list[str], text: str) -> None:
    expression = flags + "".join(parts)
    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(expression, options)
    except re2.error:
        return
    if found.search(text):
        assert required_literal(expression) in text.casefold()
