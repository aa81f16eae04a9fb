# SPDX-License-Identifier: Apache-2.0
"""The figures of ``bench detect`` as Markdown, to be taken into ``docs/benchmarks.md``."""

from __future__ import annotations

from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """All tables."""
    return "\n".join([*_by_rule(result), "", *_by_mutation(result), "", *_slow(result), ""])


def _by_rule(result: dict[str, Any]) -> list[str]:
    lines = [
        "| Rule | As recorded: precision, recall | of attacks | Mutated: precision, recall | of attacks |",
        "|---|---|---|---|---|",
    ]
    for rule, changed in result["mutated"].items():
        real = result["as_recorded"].get(rule)
        lines.append(f"| `{rule}` | {_pair(real)} | {_of(real)} | {_pair(changed)} | {_of(changed)} |")
    return lines


def _by_mutation(result: dict[str, Any]) -> list[str]:
    lines = ["| Mutation | Attacks told by any rule | False alerts in benign scenarios |", "|---|---|---|"]
    for name, each in result["by_mutation"].items():
        lines.append(
            f"| {name} | {each['told']} of {each['attacks']} | {each['false']} in {each['benign']} |"
        )
    return lines


def _slow(result: dict[str, Any]) -> list[str]:
    lines = ["| Calls | About every | Told as a beacon, by jitter |", "|---|---|---|"]
    for name, periods in result["slow"].items():
        lines += [f"| {name} | {period} | {counts} |" for period, counts in periods.items()]
    return lines


def _pair(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return ", ".join("-" if row[each] is None else f"{row[each]:.2f}" for each in ("precision", "recall"))


def _of(row: dict[str, Any] | None) -> str:
    return "0" if row is None else str(row["told"] + row["missed"])
