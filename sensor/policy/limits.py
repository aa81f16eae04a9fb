# SPDX-License-Identifier: Apache-2.0
"""What a node takes, each with its reason. Beyond it a profile is refused whole, with the numbers.

The MAX_* of maps are those of bpf/maps.h; tests/unit/sensor/policy/test_layout.py holds them together.
"""

from __future__ import annotations

from typing import Final

from sensor.policy.errors import PolicyRefused

# Sizes of the kernel's maps.
MAX_RULESETS: Final = 8192
MAX_POLICIES: Final = 4096
MAX_POLICY_SLOTS: Final = 4096
# The last one is nobody's and never has a policy: no profile reaches the sensor's own probe.
SLOT_SELF_TEST: Final = MAX_POLICY_SLOTS - 1
MAX_PROGRAMS: Final = 4096
MAX_PROGRAM_RULES: Final = 16384
# NSP_MAX_WORKLOADS: the names cgroups may have before they are there, seven for each pod that is to come.
MAX_EXPECTED_WORKLOADS: Final = 16384

# Rules of one program: a name costs the kernel about 1 KB, so this is 250 MB, the most a node should give to
# one program; and it takes the sensor about two seconds to write them.
MAX_RULES_OF_A_PROGRAM: Final = 250_000
# All rules of one profile. A larger one would not fit the topic's message size anyway.
MAX_RULES_OF_A_PROFILE: Final = 300_000
# Programs one profile names: each is an entry in every policy it takes part in.
MAX_PROGRAMS_OF_A_PROFILE: Final = 512
# Profiles a node obeys at once; a node runs a few hundred workloads, and several share one.
MAX_PROFILES: Final = 2048
# Rule sets that may be in force for one program: NSP_GRANTS of bpf/state.h.
MAX_PROFILES_OF_A_WORKLOAD: Final = 8

# Packets in flight and programs that are running hold indices for microseconds; this is generous, and short
# enough that a node does not hold the same rules twice for long.
QUARANTINE_NS: Final = 5_000_000_000

# Below this share of free rule sets, replaced ones are not kept for the addresses learned under them.
SPARE_RULESETS: Final = MAX_RULESETS // 4


def check(what: str, count: int, limit: int, cure: str = "") -> None:
    """Refuse what is more than a limit allows.

    Raises:
        PolicyRefused: With both numbers.
    """
    if count > limit:
        raise PolicyRefused(f"{what}: {count} are more than the {limit} this sensor takes", cure)
