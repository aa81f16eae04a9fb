# SPDX-License-Identifier: Apache-2.0
"""``nsp apply``, ``nsp get`` and ``nsp delete``: SecurityProfiles on ``nsp.profiles``.

Input: YAML or JSON files. All of them are validated before the first message is sent: a wrong profile is
refused with its place, value and cure, and what is in force stays. The stream app hands what is published to
the nodes; what each made of it is on ``nsp.enforcement-status`` and is shown with --wait.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from confluent_kafka import OFFSET_END

from nsp.errors import MISUSED, CommandError
from nsp.kafka import Brokers, BrokersIfAny, Cluster, KafkaOptions
from nsp.profile_files import key_of, load
from nsp.profile_state import states
from schemas.codec import decode_as, encode
from schemas.errors import CodecError
from schemas.profile.canonical import to_document
from schemas.profile.selection import HOST_NAMESPACE
from schemas.topics import ENFORCEMENT_STATUS, PROFILES

_NO_BROKERS: Final = "--brokers or NSP_BROKERS says where Kafka is"
_GENERATION: Final = "generation"
# Once a node has answered, the others are not far: how long to wait for one more.
_QUIET_S: Final = 2.0
_SETTLED: Final = ("APPLIED", "REFUSED", "FAILED", "ENDED")
_TABLE: Final = "{:<28} {:<6} {:<8} {:<30} {:<9} {:<20} {}"
_NS_PER_MS: Final = 1_000_000

Files = Annotated[
    list[Path],
    typer.Option("--filename", "-f", help="file or folder of YAML or JSON; - is stdin; repeatable"),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="show what the nodes answer")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="seconds to wait for the first node")]


def apply(
    files: Files,
    brokers: BrokersIfAny = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="validate, send nothing")] = False,
    wait: Wait = False,
    timeout: Timeout = 10.0,
    kafka_option: KafkaOptions = None,
) -> None:
    """Validate profiles and put them in force: all of the files, or none."""
    wanted = load(files, time.time_ns())
    if dry_run and not brokers:
        for record in wanted.values():
            print(f"{key_of(record)} is valid")
        return
    if not brokers:
        raise CommandError(_NO_BROKERS, "with --dry-run none is needed", MISUSED)
    cluster = Cluster(brokers, kafka_option)
    known = _published(cluster)
    changed = {key: record for key, record in wanted.items() if not _same(record, known.get(key))}
    if not dry_run:
        answers = _Answers(cluster) if wait else None
        cluster.publish(
            PROFILES.name, [(key.encode(), encode(PROFILES.value, each), -1) for key, each in changed.items()]
        )
    for key in wanted:
        what = "unchanged" if key not in changed else "configured" if key in known else "created"
        print(f"{key} {what}{' (dry run)' if dry_run else ''}")
    if not dry_run and answers:
        answers.show({f"profile/{key}": record[_GENERATION] for key, record in changed.items()}, timeout)


def get(
    what: Annotated[str, typer.Argument(help="profiles, or one as NAMESPACE/NAME")],
    brokers: Brokers,
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="table, yaml or json")] = "table",
    kafka_option: KafkaOptions = None,
) -> None:
    """Show the profiles that are published."""
    if output not in {"table", "yaml", "json"}:
        raise CommandError(f"--output {output}", "table, yaml or json", MISUSED)
    what = what.removeprefix("profile/")
    cluster, times = Cluster(brokers, kafka_option), dict[str, int]()
    known = _published(cluster, times)
    if what not in {"profiles", "profile"}:
        if what not in known:
            raise CommandError(f"there is no profile {what}", "`nsp get profiles` lists them")
        known = {what: known[what]}
    match output:
        case "json":
            # What `nsp apply -f -` takes; as it is written, for YAML does not know JSON's pairs of escapes.
            items = [to_document(each) for each in known.values()]
            print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, ensure_ascii=False))
        case "yaml":
            print(yaml.safe_dump_all((to_document(each) for each in known.values()), sort_keys=False), end="")
        case _:
            print(_TABLE.format("NAME", "SCOPE", "MODE", "STATE", "PROGRAMS", "GENERATION", "SELECTS"))
            found = states(cluster, known, times)
            for key, record in known.items():
                print(_row(key, record, found[key]))


def delete(
    names: Annotated[list[str] | None, typer.Argument(help="NAMESPACE/NAME ...")] = None,
    brokers: BrokersIfAny = "",
    *,
    files: Annotated[
        list[Path] | None, typer.Option("--filename", "-f", help="delete what these files have; repeatable")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 10.0,
    kafka_option: KafkaOptions = None,
) -> None:
    """Delete profiles: what they refused is allowed again."""
    keys = list(dict.fromkeys([*(name.removeprefix("profile/") for name in names or ()), *load(files or [])]))
    if not keys:
        raise CommandError(
            "nothing to delete", "name profiles as NAMESPACE/NAME, or give --filename", MISUSED
        )
    if not brokers:
        raise CommandError(_NO_BROKERS, exit_code=MISUSED)
    cluster = Cluster(brokers, kafka_option)
    known = _published(cluster)
    missing = [key for key in keys if key not in known]
    if missing:
        raise CommandError(f"there is no profile {', '.join(missing)}", "`nsp get profiles` lists them")
    answers = _Answers(cluster) if wait else None
    cluster.publish(PROFILES.name, [(key.encode(), None, -1) for key in keys])
    for key in keys:
        print(f"{key} deleted")
    if answers:
        answers.show({f"profile/{key}": 0 for key in keys}, timeout)


def _same(record: dict[str, Any], other: dict[str, Any] | None) -> bool:
    return other is not None and {**record, _GENERATION: 0} == {**other, _GENERATION: 0}


def _published(cluster: Cluster, times_ns: dict[str, int] | None = None) -> dict[str, dict[str, Any]]:
    """What is on the topic, by key; what cannot be read is said and left out.

    Args:
        cluster: Where.
        times_ns: Filled with the wall times of the messages.
    """
    found: dict[str, dict[str, Any]] = {}
    for message in cluster.read_all(PROFILES.name, range(cluster.partitions_of(PROFILES.name))):
        key = (message.key() or b"").decode(errors="replace")
        if message.value() is None:
            found.pop(key, None)
            continue
        try:
            found[key] = decode_as(PROFILES.value, message.value())
            if times_ns is not None:
                times_ns[key] = max(message.timestamp()[1], 0) * _NS_PER_MS
        except CodecError as error:
            print(f"nsp: {PROFILES.name} offset {message.offset()}: {error}", file=sys.stderr)
    return dict(sorted(found.items()))


def _row(key: str, record: dict[str, Any], state: str) -> str:
    selector = record["node_selector" if record["scope"] == "NODE" else "pod_selector"]
    labels = [f"{label}={value}" for label, value in selector["match_labels"].items()]
    labels += [f"{each['key']} {each['operator'].lower()}" for each in selector["match_expressions"]]
    services = [each["unit"] or each["cgroup_path"] or each["executable"] for each in record["services"]]
    everything = "" if record["namespace"] == HOST_NAMESPACE else "all pods"
    mode = record["mode"].lower() + ("*" if record["dry_run"] else "")
    selects = ",".join([*labels, *services]) or everything
    return _TABLE.format(
        key, record["scope"].lower(), mode, state, len(record["processes"]), record[_GENERATION], selects
    )


class _Answers:
    """The statuses the nodes send from now on; made before the profile is published, so none is missed."""

    def __init__(self, cluster: Cluster) -> None:
        partitions = range(cluster.partitions_of(ENFORCEMENT_STATUS.name))
        self._messages = cluster.follow(ENFORCEMENT_STATUS.name, dict.fromkeys(partitions, OFFSET_END))
        # Until each partition's end was seen the client may not have asked yet where it is.
        ends = set(partitions)
        for message in self._messages:
            if message is not None and message.error() is not None:
                ends.discard(message.partition())
            if not ends:
                break

    def show(self, wanted: dict[str, int], timeout_s: float) -> None:
        """Print what each node answers about these subjects and generations (0: any).

        Raises:
            CommandError: No node answered, or one refused.
        """
        started = time.monotonic()
        deadline = started + timeout_s
        answered: dict[tuple[str, str], str] = {}
        for message in self._messages:
            now = time.monotonic()
            if now > deadline or not wanted:
                break
            status = _status_of(message)
            if status is None or status["subject"] not in wanted:
                continue
            generation = wanted[status["subject"]]
            if generation and status["profile_generation"] not in {0, generation}:
                continue
            answered[status["node"], status["subject"]] = status["outcome"]
            deadline = now + _QUIET_S
            print(_answer(status, now - started))
        if wanted and not answered:
            raise CommandError(
                f"no node answered within {timeout_s:g} s",
                "is a stream app running, and does it select anything?",
            )
        if any(outcome in {"REFUSED", "FAILED"} for outcome in answered.values()):
            raise CommandError("not every node has it in force", "what was in force before stays there")


def _status_of(message: Any) -> dict[str, Any] | None:
    if message is None or message.error() is not None or message.value() is None:
        return None
    try:
        status = decode_as(ENFORCEMENT_STATUS.value, message.value())
    except CodecError:
        return None
    return status if status["outcome"] in _SETTLED else None


def _answer(status: dict[str, Any], after_s: float) -> str:
    first = (
        f"{status['subject'].removeprefix('profile/')} on {status['node']}: {status['outcome'].lower()}"
        f" after {after_s * 1000:.0f} ms, generation {status['profile_generation'] or status['generation']},"
        f" {status['workloads']} workloads, {status['entries']} map entries"
    )
    reason = [f"  {status['reason']}"] if status["reason"] else []
    return "\n".join([first, *reason, *(f"  warning: {each}" for each in status["warnings"])])
