# SPDX-License-Identifier: Apache-2.0
"""``nsp explain``: which profiles a workload has, and what would happen to a flow of it, and why.

Input: profiles and pods, from Kafka as the sensors and stream apps have them, or from files. They are
compiled here with the sensor's own code and asked as the kernel would ask them. Nothing is sent and nothing
resolved: a name in --to stands for the addresses a listed resolver answers it with, which is asked first.

A process of its own (cli.py becomes it), because it imports the sensor's code when it starts.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from nsp.errors import MISUSED, CommandError
from nsp.explain_flow import Asked, Options, questions_of
from nsp.inventory import load_pods
from nsp.kafka import BrokersIfAny, Cluster, KafkaOptions
from schemas.codec import decode_as
from schemas.errors import SchemaError
from schemas.profile.canonical import to_record
from schemas.profile.document import parse_profiles
from schemas.profile.errors import ProfileError
from schemas.profile.selector import selects_node, selects_pod
from schemas.profile.values import program_path, unit_name
from schemas.topics import PODS, PROFILES
from sensor.policy.errors import PolicyRefused
from sensor.policy.explain import Explanation, explain, explain_unknown
from sensor.policy.policy import UNKNOWN_MODES
from sensor.policy.profile import Program, compile_profile
from sensor.policy.workloads import Profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.policy.policy import Selection

_HOSTNAME: Final = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class _Workload:
    """As sensor.policy.workloads.Governed."""

    id: str
    kind: str
    cgroup_path: str = ""
    unit: str | None = None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("explain")
def explain_workload(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    workload: Annotated[
        str,
        typer.Argument(help="namespace/pod, pod UID, unit, /cgroup/path, or host: its other processes"),
    ],
    brokers: BrokersIfAny = "",
    process: Annotated[str, typer.Option("--process", help="path of the executable, in its container")] = "",
    script: Annotated[str, typer.Option("--script", help="path of the script it interprets")] = "",
    to: Annotated[str, typer.Option("--to", help="HOST:PORT it connects or sends to")] = "",
    source: Annotated[str, typer.Option("--from", help="ADDRESS somebody connects or sends from")] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="local port, with --from")] = 0,
    listen: Annotated[int, typer.Option("--listen", min=0, max=65535, help="local port it binds to")] = 0,
    protocol: Annotated[str, typer.Option("--protocol", help="tcp, udp, icmp, ... or a number")] = "tcp",
    ask: Annotated[str, typer.Option("--ask", help="NAME it asks a resolver, or the --to server, for")] = "",
    request: Annotated[
        str, typer.Option("--request", help='HTTP it sends, or --from sends: "GET http://HOST/PATH"')
    ] = "",
    sni: Annotated[str, typer.Option("--sni", help="server NAME of the TLS it opens, or --from opens")] = "",
    profiles: Annotated[
        Path | None,
        typer.Option("--profiles", help="file or folder of profiles, instead of Kafka"),
    ] = None,
    pods: Annotated[
        Path | None, typer.Option("--pods", help="file of pods, as for `nsp inventory publish`")
    ] = None,
    node: Annotated[str, typer.Option("--node", help="node of a host service")] = "",
    unknown: Annotated[
        str,
        typer.Option("--unknown-workload", help="allow, alert or deny, as the sensor's: for unknown pods"),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    kafka_option: KafkaOptions = None,
) -> None:
    """Say which profiles a workload has, what would happen to a flow, and which rule decides."""
    for option, path in (("--process", process), ("--script", script)):
        _check_path(option, path)
    if script and not process:
        raise CommandError("--script is what --process interprets, which is not given", exit_code=MISUSED)
    if unknown and unknown not in UNKNOWN_MODES:
        raise CommandError(f"--unknown-workload {unknown}", "allow, alert or deny", MISUSED)
    asked = questions_of(Options(to, source, port, listen, protocol, ask, request, sni))
    records, known = _sources(profiles, pods, Cluster(brokers, kafka_option) if brokers else None)
    program = Program(process, script) if process else None
    try:
        selected = _selections(workload, records, known, node, unknown)
        for each in asked or [Asked("", None)]:
            if selected is None:
                found = explain_unknown(workload, unknown, each.flow)
            else:
                found = explain(selected[0], selected[1], each.flow, program, time.time_ns())
            _show(each, found, as_json=as_json)
    except PolicyRefused as refusal:
        raise CommandError(str(refusal)) from refusal


def _sources(
    profiles: Path | None, pods: Path | None, cluster: Cluster | None
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The profiles, and the pods by UID."""
    if cluster is None and profiles is None:
        raise CommandError("neither --brokers nor --profiles is given", exit_code=MISUSED)
    records = list(_files(profiles) if profiles else _published(cluster, PROFILES.name, PROFILES.value))
    if pods:
        return records, load_pods(str(pods), _text(pods))
    return records, {each["uid"]: each for each in _published(cluster, PODS.name, PODS.value)}


def _check_path(option: str, path: str) -> None:
    try:
        if path:
            program_path(path)
    except ValueError as error:
        raise CommandError(f"{option} {error}", exit_code=MISUSED) from error


def _show(asked: Asked, found: Explanation, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"question": asked.question, **found.document()}))
        return
    if asked.question:
        print(f"{asked.question}:")
    for line in found.lines():
        print(line)


def _selections(
    workload: str, records: list[dict[str, Any]], pods: dict[str, dict[str, Any]], node: str, unknown: str
) -> tuple[str, list[Selection]] | None:
    """The workload's full name, and the profiles that have to do with it; None: a pod that nobody knows."""
    pod = _pod(workload, pods)
    if pod is None and not _is_of_host(workload):
        if unknown:
            return None
        raise CommandError(
            f"no pod {workload} is known",
            "name it namespace/pod or by its UID (`nsp tail nsp.pods` shows them), or a unit as ssh.service; "
            "what holds for it until it is known is the sensors' --unknown-workload: give that",
        )
    if pod:
        selecting = [each for each in records if selects_pod(each, pod["namespace"], pod["labels"])]
    else:
        # Without a node, whatever some node has.
        selecting = [
            each
            for each in records
            if each["scope"] == "NODE" and (not node or selects_node(each, {_HOSTNAME: node}))
        ]
    profiles = Profiles(node, "allow")
    for record in selecting:
        profiles.put(compile_profile(record))
    if pod:
        profiles.select(pod["uid"], profiles.keys())
        return f"{pod['namespace']}/{pod['name']}", profiles.selections(_Workload(pod["uid"], "POD"))
    return workload, profiles.selections(_host_workload(workload))


def _pod(workload: str, pods: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    if workload in pods:
        return pods[workload]
    found = [pod for pod in pods.values() if f"{pod['namespace']}/{pod['name']}" == workload]
    return found[-1] if found else None


def _is_of_host(workload: str) -> bool:
    return workload == "host" or workload.startswith("/") or _is_unit(workload)


def _is_unit(workload: str) -> bool:
    try:
        unit_name(workload)
    except ValueError:
        return False
    return True


def _host_workload(workload: str) -> _Workload:
    if workload == "host":
        return _Workload("host", "HOST", "/")
    if workload.startswith("/"):
        return _Workload(workload, "HOST_SERVICE", workload)
    return _Workload(workload, "HOST_SERVICE", f"/system.slice/{workload}", workload)


def _published(cluster: Cluster | None, topic: str, record: str) -> Iterator[dict[str, Any]]:
    """The newest value of each key of a compacted topic; nothing without a cluster."""
    if cluster is None:
        return
    newest: dict[bytes, bytes | None] = {}
    for message in cluster.read_all(topic, range(cluster.partitions_of(topic))):
        newest[message.key()] = message.value()
    for key, value in newest.items():
        if value is not None:
            try:
                yield decode_as(record, value)
            except SchemaError as error:
                shown = key.decode(errors="replace") if key else "without a key"
                sys.stderr.write(f"nsp: {topic} {shown} is left out: {error}\n")


def _files(given: Path) -> Iterator[dict[str, Any]]:
    """Profile records of a file, or of a folder's."""
    files = [given]
    if given.is_dir():
        files = sorted(each for each in given.iterdir() if each.suffix in {".json", ".yaml", ".yml"})
    for file in files:
        try:
            profiles = parse_profiles(_text(file), str(file))
        except ProfileError as error:
            raise CommandError(str(error)) from error
        for profile in profiles:
            yield to_record(profile, 0)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise CommandError(f"{file}: {reason}") from error


def main() -> NoReturn:
    """Run the command line and exit, as cli.py does."""
    try:
        app(prog_name="nsp explain")
    except CommandError as error:
        print(f"nsp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
