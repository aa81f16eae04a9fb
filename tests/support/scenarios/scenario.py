# SPDX-License-Identifier: Apache-2.0
"""A row of the table, and the rules that rows name.

``script`` is run by ``sh``, where ``via`` says: by the hole of a service (``python``, ``java``, ``node``,
``php``, ``perl``, ``cgi``, ``postgres``), as a container's own program (``entry``), by somebody who executes
into the pod of a service (``probe``), or as a service of the host (``unit NAME``). A service may also be
asked for a piece of its own work (``python fetch``). ``{PORT}`` is the service's port.
"""

from __future__ import annotations

from dataclasses import dataclass

RCE, REVERSE, BIND, DROPPED = "nsp.rce-egress", "nsp.reverse-shell", "nsp.bind-shell", "nsp.dropped-program"
UNRESOLVED, TUNNEL, BEACON = "nsp.unresolved-address", "nsp.dns-tunnel", "nsp.beacon"
SCAN, CLOUD, MINING = "nsp.port-scan", "nsp.metadata-service", "nsp.mining"
KUBERNETES, LATERAL, DRIFT = "nsp.kubernetes-api", "nsp.lateral-movement", "nsp.drift"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row.

    Attributes:
        name: In words.
        via: Where it runs; see the module.
        script: What runs.
        expects: The rules that must tell it; none: it is benign, and no rule may.
        beside: Rules that rightly tell it too, without being what it is there for.
        needs: Programs; without one it is skipped.
        knock: What is run outside meanwhile.
        slower: How much more time passes between its events when they are judged, because nobody can wait
            for a beacon: the events are real, the hours are not.
    """

    name: str
    via: str
    script: str
    expects: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    knock: str = ""
    slower: int = 1

    @property
    def is_attack(self) -> bool:
        """Whether something must be told."""
        return bool(self.expects)
