# SPDX-License-Identifier: Apache-2.0
"""What the sensor is told at start: flags first, then ``NSP_*`` variables, then defaults.

Input: the command line and the environment, read once by ``__main__``. Output: one frozen
:class:`Settings`. Failure: :class:`SettingsError` with the name, the value and the cure, before anything
is loaded into the kernel. argparse and dataclasses, because a validation library costs the long-lived
process more memory than its Kafka client.
"""

from __future__ import annotations

import argparse
import ipaddress
import math
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sensor.enforce.kill import DEFAULT_PROTECTED
from sensor.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MIN_RING_BYTES: Final = 64 * 1024
MAX_RING_BYTES: Final = 256 * 1024 * 1024
# Each test costs some 60 ms of CPU, so a node tests itself every few minutes; less is for measurements.
MIN_SELFTEST_S: Final = 0.01
MAX_SELFTEST_S: Final = 86_400.0
# A node name is a topic key and part of ids that use "/" between their parts.
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_COMPRESSIONS: Final = ("none", "lz4", "zstd", "snappy", "gzip")
# librdkafka settings that the promises of publish/producer.py rest on.
_RESERVED_OPTIONS: Final = frozenset({
    "acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "message.timeout.ms",
    "delivery.timeout.ms", "partitioner", "compression.type", "compression.codec", "bootstrap.servers",
    "metadata.broker.list",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the sensor can be told.

    Attributes:
        node: Node name: the key of its batches and what enforcement is addressed to.
        brokers: ``host:port[,host:port...]``.
        cgroup_root: Where in the cgroup v2 tree the programs attach; None finds the mount.
        pin_directory: Where maps and links are pinned; what survives the sensor.
        compile_cache: Where compiled programs are kept for the next start; None compiles each time.
        ring_bytes: Size of the kernel's ring, a power of two.
        batch_events: A batch closes at this many events,
        batch_ms: or this long after its first one, whichever is first; sooner when a service's descendant
            starts a program, asks a name or goes out.
        compression: Of the Kafka record batches.
        metrics_address: ``host:port`` of ``/metrics`` and ``/healthz``; None serves neither.
        enforcement_public_keys: PEM files; without any, no enforcement is obeyed.
        unknown_workload: What holds for a pod nobody has spoken of yet: ``allow``, ``alert`` or ``deny``.
        guard_cgroups: Under the cgroup v2 mount: what appears there is a workload, unknown at first; none:
            where Kubernetes has its pods.
        resolvers: DNS servers that are believed; none: those of the node's resolv.conf.
        break_glass: Flows no profile may cut, as sensor/policy/safety.py writes them.
        protected_executables: Patterns of executables of the host and its services that no order ends.
        learned_floor_s: How long an answered address counts at least,
        learned_grace_s: and how long beyond its TTL.
        interfaces: ``on``: attach to network interfaces too (ARP, packet sockets); ``off``.
        selftest_interval_s: Seconds between tests of the sensor by itself; 0: none.
        kafka_options: Further librdkafka settings (TLS), for every client of this process.
        log_format: ``json`` or ``console``.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
    """

    node: str
    brokers: str
    cgroup_root: Path | None = None
    pin_directory: Path = Path("/sys/fs/bpf/nsp")
    compile_cache: Path | None = Path("/var/cache/nsp")
    ring_bytes: int = 4 * 1024 * 1024
    batch_events: int = 500
    batch_ms: int = 200
    compression: str = "lz4"
    metrics_address: tuple[str, int] | None = ("127.0.0.1", 9477)
    enforcement_public_keys: tuple[Path, ...] = ()
    unknown_workload: str = "allow"
    guard_cgroups: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    break_glass: tuple[str, ...] = ()
    protected_executables: tuple[str, ...] = DEFAULT_PROTECTED
    learned_floor_s: int = 30
    learned_grace_s: int = 60
    interfaces: str = "on"
    selftest_interval_s: float = 300.0
    kafka_options: Mapping[str, str] = field(default_factory=dict)
    log_format: str = "json"
    log_level: str = "info"

    def __post_init__(self) -> None:
        _check(self)
        _check_profiles(self)


def _check(settings: Settings) -> None:
    if not _NODE_NAME.fullmatch(settings.node):
        raise SettingsError("node", settings.node, "letters, digits, '.', '_' and '-', at most 253")
    if not all(_is_host_port(each) for each in settings.brokers.split(",")):
        raise SettingsError("brokers", settings.brokers, "host:port, several separated by commas")
    _check_range("batch-events", settings.batch_events, 1, 10_000)
    _check_range("batch-ms", settings.batch_ms, 1, 10_000)
    _check_range("ring-bytes", settings.ring_bytes, MIN_RING_BYTES, MAX_RING_BYTES)
    if settings.ring_bytes & (settings.ring_bytes - 1):
        raise SettingsError("ring-bytes", str(settings.ring_bytes), "a power of two")
    if settings.compression not in _COMPRESSIONS:
        raise SettingsError("compression", settings.compression, f"one of {', '.join(_COMPRESSIONS)}")
    for path in settings.enforcement_public_keys:
        if not path.is_file():
            raise SettingsError("enforcement-public-key", str(path), "a readable PEM file")
    for name in settings.kafka_options:
        if name in _RESERVED_OPTIONS:
            raise SettingsError("kafka-option", name, "leave it out: exactness of the events rests on it")


def _check_profiles(settings: Settings) -> None:
    _check_range("learned-floor-s", settings.learned_floor_s, 1, 86_400)
    _check_range("learned-grace-s", settings.learned_grace_s, 0, 86_400)
    if settings.selftest_interval_s and not MIN_SELFTEST_S <= settings.selftest_interval_s <= MAX_SELFTEST_S:
        expected = f"0, or seconds from {MIN_SELFTEST_S} to {MAX_SELFTEST_S:.0f}"
        raise SettingsError("selftest-interval", str(settings.selftest_interval_s), expected)
    for path in settings.guard_cgroups:
        if not path.startswith("/"):
            raise SettingsError(
                "guard-cgroup", path, "a path under the cgroup v2 mount, with a leading slash"
            )


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SettingsError(name, str(value), f"a number from {low} to {high}")


def _is_host_port(text: str) -> bool:
    host, _, port = text.strip().rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 1 << 16


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read flags and ``NSP_*`` variables; a flag wins over its variable.

    Repeatable flags take a comma-separated list from their variable.

    Raises:
        SettingsError: A value that cannot be used.
        SystemExit: ``--help`` or an unknown flag (argparse).
    """
    given = {
        name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None
    }
    for name in _FLAGS:
        variable = environment.get(f"NSP_{name.upper()}")
        if variable and name not in given:
            given[name] = variable.split(",") if name in _REPEATABLE else variable
    given.setdefault("node", socket.gethostname())
    if "brokers" not in given:
        raise SettingsError("brokers", "", "give --brokers host:port or NSP_BROKERS")
    values = {_FIELDS.get(name, name): _convert(name, value) for name, value in given.items()}
    return Settings(**values)  # type: ignore[arg-type]  # each value was converted by its field's function


def _convert(name: str, value: object) -> object:
    try:
        return _CONVERT.get(name, str)(value)
    except ValueError as error:
        raise SettingsError(name.replace("_", "-"), str(value), str(error)) from error


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise ValueError("a whole number") from error


def _seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError as error:
        raise ValueError("a number of seconds") from error
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("a number of seconds")
    return seconds


def _address(value: object) -> tuple[str, int] | None:
    text = str(value)
    if text == "none":
        return None
    if not _is_host_port(text):
        raise ValueError("host:port, or none")
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _options(value: object) -> dict[str, str]:
    options = {}
    for each in _list(value):
        name, separator, text = each.partition("=")
        if not separator or not name:
            raise ValueError("librdkafka-name=value")
        options[name] = text
    return options


def _paths(value: object) -> tuple[Path, ...]:
    return tuple(Path(each) for each in _list(value))


def _addresses(value: object) -> tuple[str, ...]:
    for each in _list(value):
        try:
            ipaddress.ip_address(each)
        except ValueError as error:
            raise ValueError("an IPv4 or IPv6 address") from error
    return tuple(_list(value))


def _list(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _choice(*allowed: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return str(value)

    return convert


# Flag -> help. The order is the one of --help.
_FLAGS: Final[dict[str, str]] = {
    "node": "node name (default: host name)",
    "brokers": "Kafka brokers, host:port[,host:port...]",
    "cgroup_root": "attach here in the cgroup v2 tree (default: its mount)",
    "pin_directory": "where maps and links are pinned (default: /sys/fs/bpf/nsp)",
    "compile_cache": "directory where compiled programs are kept, or none (default: /var/cache/nsp)",
    "ring_bytes": "size of the kernel's event ring, a power of two (default: 4 MB)",
    "batch_events": "a batch closes at this many events (default: 500)",
    "batch_ms": "or this many ms after its first event (default: 200)",
    "compression": f"one of {', '.join(_COMPRESSIONS)} (default: lz4)",
    "metrics_address": "host:port of /metrics and /healthz, or none (default: 127.0.0.1:9477)",
    "enforcement_public_key": "PEM file of a key that may sign enforcement; repeatable",
    "unknown_workload": "for pods nobody has spoken of yet: allow, alert or deny (default: allow)",
    "guard_cgroup": "cgroup below which workloads appear (default: Kubernetes' pods); repeatable",
    "resolver": "DNS server whose answers are believed (default: the node's resolv.conf); repeatable",
    "break_glass": "flow no profile may cut, e.g. 'tcp:10.0.0.0/8:22 in ssh.service'; repeatable",
    "protected_executable": "pattern of executables of the host that no order ends (default: sshd, kubelet, "
    "container runtimes, systemd, ...); repeatable",
    "learned_floor_s": "seconds an answered address counts at least (default: 30)",
    "learned_grace_s": "seconds it counts beyond its TTL (default: 60)",
    "selftest_interval": "seconds between tests of the sensor by itself, 0 for none (default: 300)",
    "interfaces": "on or off: attach to network interfaces (ARP spoofing, packet sockets; default: on)",
    "kafka_option": "librdkafka setting as name=value, e.g. for TLS; repeatable",
    "log_format": "json or console (default: json)",
    "log_level": "debug, info, warning or error (default: info)",
}
_REPEATABLE: Final = (
    "enforcement_public_key", "guard_cgroup", "resolver", "break_glass", "protected_executable",
    "kafka_option",
)  # fmt: skip
_FIELDS: Final = {
    "enforcement_public_key": "enforcement_public_keys",
    "guard_cgroup": "guard_cgroups",
    "resolver": "resolvers",
    "protected_executable": "protected_executables",
    "kafka_option": "kafka_options",
    "selftest_interval": "selftest_interval_s",
}
_CONVERT: Final[dict[str, Callable[[object], object]]] = {
    "cgroup_root": lambda value: Path(str(value)),
    "pin_directory": lambda value: Path(str(value)),
    "compile_cache": lambda value: None if value == "none" else Path(str(value)),
    "ring_bytes": _whole,
    "batch_events": _whole,
    "batch_ms": _whole,
    "metrics_address": _address,
    "enforcement_public_key": _paths,
    "kafka_option": _options,
    "unknown_workload": _choice("allow", "alert", "deny"),
    "guard_cgroup": lambda value: tuple(_list(value)),
    "resolver": _addresses,
    "break_glass": lambda value: tuple(_list(value)),
    "protected_executable": lambda value: tuple(_list(value)),
    "learned_floor_s": _whole,
    "learned_grace_s": _whole,
    "interfaces": _choice("on", "off"),
    "selftest_interval": _seconds,
    "log_format": _choice("json", "console"),
    "log_level": _choice("debug", "info", "warning", "error"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sensor",
        description="Report what processes do on the network, and cut what must be cut.",
        epilog="Each flag can be given as NSP_<FLAG>, e.g. NSP_BATCH_MS=50.",
    )
    for name, text in _FLAGS.items():
        flag = "--" + name.replace("_", "-")
        if name in _REPEATABLE:
            parser.add_argument(flag, help=text, action="append")
        else:
            parser.add_argument(flag, help=text)
    return parser
