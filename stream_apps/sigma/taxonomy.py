# SPDX-License-Identifier: Apache-2.0
"""What a Sigma rule may ask of our events: log sources, fields, and what we do not have.

``nsp rules fields`` prints this as the table of ``docs/sigma.md``. A rule that asks for anything else is
refused: a condition on a field that never has a value would hold for all events or for none.

Each event has its values in numbered slots, the same in all streams: what the closures index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Stream = Literal["process", "connection", "ends", "question", "answer"]
Kind = Literal["text", "path", "user", "number", "flag", "address"]

PRODUCTS: Final = (None, "linux")
CATEGORIES: Final = ("process_creation", "network_connection", "dns_query", "dns")

# The record kinds a stream is made of.
RECORDS: Final[dict[Stream, tuple[str, ...]]] = {
    "process": ("nsp.ProcessExec",),
    "connection": ("nsp.SocketConnect", "nsp.DatagramSend", "nsp.SocketAccept"),
    "ends": ("nsp.SocketClose",),
    "question": ("nsp.DnsQuestion",),
    "answer": ("nsp.DnsAnswer",),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field.

    Attributes:
        name: As rules write it.
        slot: Where its value is.
        kind: What its values are.
        streams: Where it can be asked for.
        meaning: What it is here, for people.
    """

    name: str
    slot: int
    kind: Kind
    streams: tuple[Stream, ...]
    meaning: str


(
    IMAGE, COMMAND_LINE, PARENT_IMAGE, PARENT_COMMAND_LINE, USER, PARENT_USER, PROCESS_ID, PARENT_PROCESS_ID,
    COMPUTER, NAMESPACE, POD, CONTAINER, CONTAINER_IMAGE, DESTINATION_IP, DESTINATION_PORT, DESTINATION_HOST,
    DESTINATION_IPV6, PROTOCOL, INITIATED, SOURCE_IP, SOURCE_PORT, SOURCE_IPV6, QUERY_NAME, RECORD_TYPE,
    QUERY_STATUS, QUERY_RESULTS, IMAGE_NAME, PARENT_IMAGE_NAME, EVERYTHING,
) = range(29)  # fmt: skip
SLOTS: Final = EVERYTHING + 1

# Where the part of a path behind the last slash is; not a field, but what most rules look at.
NAME_SLOTS: Final = {IMAGE: IMAGE_NAME, PARENT_IMAGE: PARENT_IMAGE_NAME}

_ALL: Final[tuple[Stream, ...]] = ("process", "connection", "ends", "question", "answer")
_NET: Final[tuple[Stream, ...]] = ("connection", "ends")
_DNS: Final[tuple[Stream, ...]] = ("question", "answer")

FIELDS: Final = (
    Field("Image", IMAGE, "path", _ALL, "executable, as the kernel walked the path"),
    Field("CommandLine", COMMAND_LINE, "text", _ALL,
          "arguments, joined by spaces; the sensor keeps the first 1,024 bytes"),
    Field("ParentImage", PARENT_IMAGE, "path", _ALL, "executable of the process it was started from"),
    Field("ParentCommandLine", PARENT_COMMAND_LINE, "text", _ALL, "arguments of that process"),
    Field("User", USER, "user", _ALL,
          "name of the user id: root, and those of detect.sigma.users; other ids as numbers"),
    Field("ParentUser", PARENT_USER, "user", _ALL, "the same of the process it was started from"),
    Field("ProcessId", PROCESS_ID, "number", _ALL, "process id on the node"),
    Field("ParentProcessId", PARENT_PROCESS_ID, "number", _ALL, "of the process it was started from"),
    Field("Computer", COMPUTER, "text", _ALL, "node"),
    Field("Namespace", NAMESPACE, "text", _ALL, "ours: Kubernetes namespace; absent outside of pods"),
    Field("PodName", POD, "text", _ALL, "ours: pod"),
    Field("ContainerName", CONTAINER, "text", _ALL, "ours: container in its pod"),
    Field("ContainerImage", CONTAINER_IMAGE, "text", _ALL, "ours: image of the container"),
    Field("DestinationIp", DESTINATION_IP, "address", _NET, "address of the side that was connected to"),
    Field("DestinationPort", DESTINATION_PORT, "number", _NET, "its port"),
    Field("DestinationHostname", DESTINATION_HOST, "text", _NET,
          "name by which the workload asked for the address; absent if it did not ask"),
    Field("DestinationIsIpv6", DESTINATION_IPV6, "flag", _NET, "true or false"),
    Field("Protocol", PROTOCOL, "text", _NET, "tcp, udp, sctp, or a number"),
    Field("Initiated", INITIATED, "flag", _NET, "true: outgoing; false: accepted"),
    Field("SourceIp", SOURCE_IP, "address", ("ends",),
          "address of the side that connected; a rule with it is judged when a TCP connection ends"),
    Field("SourcePort", SOURCE_PORT, "number", ("ends",), "its port"),
    Field("SourceIsIpv6", SOURCE_IPV6, "flag", ("ends",), "true or false"),
    Field("QueryName", QUERY_NAME, "text", _DNS, "name asked for, lower case, without the last dot"),
    Field("query", QUERY_NAME, "text", _DNS, "the same, for rules of category dns"),
    Field("record_type", RECORD_TYPE, "text", _DNS, "A, AAAA, TXT, ..., or a number"),
    Field("QueryStatus", QUERY_STATUS, "number", ("answer",),
          "response code; a rule with it or the results is judged at the answer, others at the question"),
    Field("QueryResults", QUERY_RESULTS, "text", ("answer",), "data of all records, separated by ;"),
    Field("answer", QUERY_RESULTS, "text", ("answer",), "the same, for rules of category dns"),
)  # fmt: skip

BY_NAME: Final = {each.name: each for each in FIELDS}

_PE: Final = "is read from Windows executables"
ABSENT: Final = {
    "CurrentDirectory": "the sensor does not record working directories",
    "ParentCurrentDirectory": "the sensor does not record working directories",
    "LogonId": "there is no logon session behind a process in a container",
    "LogonGuid": "there is no logon session behind a process in a container",
    "TerminalSessionId": "there is no logon session behind a process in a container",
    "IntegrityLevel": "it is a Windows notion",
    "ParentIntegrityLevel": "it is a Windows notion",
    "Hashes": "the sensor does not hash files",
    "md5": "the sensor does not hash files",
    "sha1": "the sensor does not hash files",
    "sha256": "the sensor does not hash files",
    "Imphash": f"it {_PE}",
    "OriginalFileName": f"it {_PE}",
    "Product": f"it {_PE}",
    "Company": f"it {_PE}",
    "Description": f"it {_PE}",
    "FileVersion": f"it {_PE}",
    "SourceHostname": "nobody asks for the name of who connects",
    "EventID": "our events have kinds, not numbers of another log",
}

STREAMS_OF: Final[dict[str, tuple[Stream, ...]]] = {
    "process_creation": ("process",),
    # The first stream is the default; a rule that asks for a field of the second alone is judged there.
    "network_connection": ("connection", "ends"),
    "dns_query": ("question", "answer"),
    "dns": ("question", "answer"),
}
