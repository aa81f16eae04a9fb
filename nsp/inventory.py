# SPDX-License-Identifier: Apache-2.0
"""``nsp inventory``: put the metadata of pods on ``nsp.pods``, where no Kubernetes controller does.

Input: a YAML or JSON file, either ``pods:`` with ``Pod`` records or what ``kubectl get pods -A -o json``
prints. The whole file is checked before the first message is sent.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from nsp.errors import CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions
from nsp.kubernetes import is_kubernetes_list, pod_documents
from schemas.codec import encode
from schemas.documents import from_document
from schemas.errors import SchemaError
from schemas.topics import PODS

app = typer.Typer(help="Metadata of pods.", no_args_is_help=True)


@app.callback()
def inventory() -> None:
    """Metadata of pods."""


@app.command("publish")
def publish(
    file: Annotated[Path, typer.Argument(help="YAML or JSON; - for standard input")],
    brokers: Brokers,
    *,
    prune: Annotated[
        bool, typer.Option("--prune", help="also remove the pods that are not in the file")
    ] = False,
    kafka_option: KafkaOptions = None,
) -> None:
    """Publish the pods of a file."""
    pods = load_pods(str(file), _read(file))
    cluster = Cluster(brokers, kafka_option)
    partitions = cluster.partitions_of(PODS.name)
    messages: list[tuple[bytes, bytes | None, int]] = [
        (uid.encode(), encode(PODS.value, pod), -1) for uid, pod in pods.items()
    ]
    gone: list[bytes] = []
    if prune:
        known: dict[bytes, bool] = {}
        for message in cluster.read_all(PODS.name, range(partitions)):
            if message.key() is not None:
                known[message.key()] = message.value() is not None
        gone = [key for key, alive in known.items() if alive and key.decode(errors="replace") not in pods]
        messages += [(key, None, -1) for key in gone]
    cluster.publish(PODS.name, messages)
    print(f"{len(pods)} pods published" + (f", {len(gone)} removed" if prune else ""))


def load_pods(name: str, text: str) -> dict[str, dict[str, Any]]:
    """The pods of a file by UID.

    Args:
        name: What the file is called in errors.
        text: Its content.

    Raises:
        CommandError: It is not what it should be; says where.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CommandError(f"{name} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if is_kubernetes_list(content):
        documents = pod_documents(content)
    elif isinstance(content, dict) and isinstance(content.get("pods"), list) and len(content) == 1:
        documents = content["pods"]
    else:
        raise CommandError(
            f"{name} has no list `pods`", "see `nsp inventory publish --help` for what it may be"
        )
    pods: dict[str, dict[str, Any]] = {}
    for index, document in enumerate(documents):
        try:
            pod = from_document(PODS.value, document)
        except SchemaError as error:
            raise CommandError(f"{name}, pods[{index}]: {error}") from error
        if not pod["uid"]:
            raise CommandError(f"{name}, pods[{index}]: the uid is empty")
        if pod["uid"] in pods:
            raise CommandError(f"{name}, pods[{index}]: uid {pod['uid']} is there twice")
        pods[pod["uid"]] = pod
    return pods


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise CommandError(f"{file}: {reason}") from error
