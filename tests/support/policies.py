# SPDX-License-Identifier: Apache-2.0
"""Compiled policies for tests of the maps, and who compiles their rule sets when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sensor.policy.policy import Policy, Selection, union_of
from sensor.policy.profile import compile_profile
from tests.support.profiles import TCP, application, network, process, profile, rules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sensor.policy.rules import RuleSet

SLOT: Final = 5


class RuleBook:
    """Rule sets of the profiles it was given; counts how many it was asked for."""

    def __init__(self) -> None:
        self.known: dict[bytes, RuleSet] = {}
        self.asked = 0

    def policy(self, *records: dict[str, Any]) -> Policy:
        """The union of profiles, whose rule sets are known from now on."""
        profiles = [compile_profile(record) for record in records]
        policy = union_of([Selection(each) for each in profiles], 0)
        if policy is None:
            raise ValueError("every profile has expired")
        for each in profiles:
            self.known |= {found.content: found for found in each.rule_sets(policy.rule_sets())}
        return policy

    def __call__(self, contents: Collection[bytes]) -> Iterator[RuleSet]:
        self.asked += len(contents)
        return (self.known[content] for content in contents)


def versions(book: RuleBook) -> tuple[Policy, Policy]:
    """Two versions of one profile with rules of every kind, different in all of them."""
    first, second = (
        book.policy(
            profile(
                generation=number,
                default=network(
                    rules(
                        f"10.{number}.0.0/16",
                        f"2001:db8:{number}::/48",
                        names=(
                            f"*.v{number}.example.com",
                            *(f"h{at}.v{number}.example" for at in range(300)),
                        ),
                        ports=((TCP, 1000 * number, 1000 * number + 500),),
                        l7_given=application("HTTP", http=[{"method": "GET", "uri": f"/v{number}/*"}]),
                    )
                ),
                processes=[process(f"/usr/bin/v{number}", network(rules(f"192.0.2.{number}/32")))],
            )
        )
        for number in (1, 2)
    )
    return first, second
