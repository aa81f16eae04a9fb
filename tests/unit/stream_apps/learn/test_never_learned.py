# SPDX-License-Identifier: Apache-2.0
"""What is never learned: tools no profile should allow, and peers that were refused or are forbidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.batches import SECOND, Node
from tests.support.learning import (
    WEB,
    deeds,
    learning,
    merged,
    node,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def shell_below_a_service(on: Node) -> int:
    return on.spawn(on.service(WEB, ["web"]), "/usr/bin/bash", ["bash", "-c", "x"])


def downloader_below_a_shell(on: Node) -> int:
    return on.spawn(shell_below_a_service(on), "/usr/bin/id-tool")


def netcat_of_an_entry_point(on: Node) -> int:
    return on.spawn(on.service("/entrypoint", serving=False), "/usr/bin/nc.openbsd")


def memfd(on: Node) -> int:
    return on.spawn(on.service("/entrypoint", serving=False), "memfd:x", deleted=True)


@pytest.mark.parametrize(
    "tool", [shell_below_a_service, downloader_below_a_shell, netcat_of_an_entry_point, memfd]
)
def test_known_bad_tools_are_kept_as_evidence_and_never_learned(tool: Callable[[Node], int]) -> None:
    through, on = learning(), node()
    on.connect(tool(on), "203.0.113.9", 4444)
    take(through, on)
    found = merged(through)
    assert ("EGRESS", 4444, "203.0.113.9/32") in {
        (kind, port, peer) for kind, _, port, peer in deeds(found, "KNOWN_BAD")
    }
    assert "EGRESS" not in {kind for kind, *_ in deeds(found)}


def test_a_tool_that_is_allowed_is_learned_and_a_shell_of_an_entry_point_too() -> None:
    through = learning(learn={"allow_programs": ["/usr/bin/bash"]})
    on = node()
    on.connect(shell_below_a_service(on), "203.0.113.9", 4444)
    on.connect(on.spawn(on.service("/entrypoint", serving=False), "/usr/bin/dash"), "203.0.113.10", 80)
    take(through, on)
    assert {(path, peer) for kind, path, _, peer in deeds(merged(through)) if kind == "EGRESS"} == {
        ("/usr/bin/bash", "203.0.113.9/32"),
        ("/usr/bin/dash", "203.0.113.10/32"),
    }


def test_a_peer_that_a_profile_refused_is_never_learned_again() -> None:
    through, on = learning(), node()
    web = on.service(WEB)
    on.answer(web, "evil.example", ["203.0.113.9"])
    on.refuse(web, "203.0.113.9", 443, reason="ADDRESS")
    on.refuse(web, "203.0.113.7", 25, reason="L4_PROTOCOL")
    take(through, on)
    # Later the profile is gone: the name has another address, and the address is reached without the name.
    on.answer(web, "evil.example", ["203.0.113.10"])
    for address, port in (("203.0.113.10", 443), ("203.0.113.7", 25), ("203.0.113.7", 80)):
        on.connect(web, address, port)
    on.now_ns += 3600 * SECOND
    on.connect(web, "203.0.113.9", 8443)
    take(through, on)
    assert [each for each in deeds(merged(through)) if each[0] == "EGRESS"] == [
        ("EGRESS", WEB, 80, "203.0.113.7/32")
    ]


def test_what_a_profile_only_alerts_on_is_learned() -> None:
    through, on = learning(), node()
    web = on.service(WEB)
    on.refuse(web, "203.0.113.9", 443, reason="ADDRESS", alerted_only=True)
    on.connect(web, "203.0.113.9", 443)
    take(through, on)
    assert list(deeds(merged(through))) == [("EGRESS", WEB, 443, "203.0.113.9/32")]


def test_what_the_configuration_forbids_is_never_learned() -> None:
    through = learning(learn={"forbidden_names": ["*.onion.example"]})
    on = node()
    web = on.service(WEB)
    on.ask(web, "x.onion.example")
    on.answer(web, "x.onion.example", ["203.0.113.9"])
    on.connect(web, "203.0.113.9", 443)
    on.connect(web, "169.254.169.254", 80)
    take(through, on)
    assert list(deeds(merged(through))) == []
    assert len(list(deeds(merged(through), "FORBIDDEN"))) == 3
