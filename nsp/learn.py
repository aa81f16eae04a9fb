# SPDX-License-Identifier: Apache-2.0
"""``nsp learn``: what workloads do, how complete that is, and a SecurityProfile of it.

Input: ``nsp.observations``, as the stream apps write it. Output: a list of workloads with state and coverage,
or the draft of one as YAML with the evidence for each rule. Nothing is sent, but for --forget. A process of
its own (cli.py becomes it), because it imports what judges and drafts when it starts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import typer

from nsp.errors import MISUSED, CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions
from schemas.codec import decode_as
from schemas.documents import to_document
from schemas.errors import SchemaError
from schemas.profile.document import parse_profiles
from schemas.profile.errors import ProfileError
from schemas.topics import OBSERVATIONS
from stream_apps.assembly import build_thresholds, shard_limits
from stream_apps.config.document import StreamConfig, load
from stream_apps.errors import ConfigError
from stream_apps.learn.completeness import judge
from stream_apps.learn.draft import DraftError, Wanted, draft
from stream_apps.learn.merged import by_workload, merge
from stream_apps.learn.profile_yaml import to_yaml
from stream_apps.learn.record import from_record, key_of, to_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_apps.learn.completeness import Verdict
    from stream_apps.learn.merged import Merged
    from stream_apps.learn.shard import Shard

_TABLE: Final = "{:<40} {:<9} {:>8} {:>17} {:>7} {:>5} {:<8} {}"
_NARROW: Final = 60

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("learn")
def learn(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    brokers: Brokers,
    workload: Annotated[
        str, typer.Argument(help="as listed, e.g. shop/Deployment/web or host/nginx.service; none: list all")
    ] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", help="file for the profile; - is stdout; json is all there is")
    ] = "-",
    config: Annotated[
        Path | None, typer.Option("--config", help="the stream apps' file, for thresholds other than default")
    ] = None,
    action: Annotated[
        str, typer.Option("--action", help="alert (with dryRun), or enforce, when the gate is open")
    ] = "alert",
    with_drift: Annotated[
        bool, typer.Option("--with-drift", help="also what came after the workload was stable")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="withdraw what was learned of it, and learn anew")
    ] = False,
    kafka_option: KafkaOptions = None,
) -> None:
    """List what was learned of which workload, or draft the SecurityProfile of one."""
    settings = _settings(config)
    cluster = Cluster(brokers, kafka_option)
    shards = by_workload(_published(cluster, settings))
    if not workload:
        _list(shards.values(), settings, as_json=output == "json")
        return
    if workload not in shards:
        near = ", ".join(each for each in sorted(shards) if workload in each)[:400]
        raise CommandError(
            f"nothing was learned of {workload}",
            f"did you mean {near}?" if near else "`nsp learn` lists workloads",
        )
    if forget:
        cluster.publish(
            OBSERVATIONS.name, [(key_of(workload, each.node), None, -1) for each in shards[workload]]
        )
        print(f"{workload}: withdrawn from {len(shards[workload])} nodes; it is learned anew")
        return
    merged = merge(shards[workload])
    verdict = judge(merged, build_thresholds(settings.learn))
    if output == "json":
        print(json.dumps(_document(merged, verdict, shards[workload])))
        return
    _write(output, _draft(merged, verdict, settings, _action(action), with_drift=with_drift))


def _settings(file: Path | None) -> StreamConfig:
    try:
        return load(file) if file else StreamConfig()
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _action(text: str) -> Literal["alert", "enforce"]:
    if text == "alert":
        return "alert"
    if text == "enforce":
        return "enforce"
    raise CommandError(f"--action {text}", "alert or enforce", MISUSED)


def _published(cluster: Cluster, settings: StreamConfig) -> list[Shard]:
    """The newest record of each key; what cannot be read is said and left out."""
    newest: dict[bytes, bytes | None] = {}
    for message in cluster.read_all(OBSERVATIONS.name, range(cluster.partitions_of(OBSERVATIONS.name))):
        newest[message.key() or b""] = message.value()
    found = []
    for key, value in sorted(newest.items()):
        if value is None:
            continue
        try:
            found.append(from_record(decode_as(OBSERVATIONS.value, value), shard_limits(settings.learn)))
        except SchemaError as error:
            print(f"nsp: {OBSERVATIONS.name} {key.decode(errors='replace')}: {error}", file=sys.stderr)
    return found


def _list(workloads: Any, settings: StreamConfig, *, as_json: bool) -> None:
    thresholds = build_thresholds(settings.learn)
    if not as_json:
        print(
            _TABLE.format(
                "WORKLOAD", "STATE", "COVERAGE", "95 % INTERVAL", "UNSEEN", "PODS", "ENFORCE", "WHY"
            )
        )
    for shards in workloads:
        merged = merge(shards)
        verdict = judge(merged, thresholds)
        if as_json:
            print(json.dumps({"workload": merged.key, **_counts(merged), **verdict.document()}))
            continue
        seen = verdict.estimate
        trust = "" if verdict.reliable else "?"
        print(
            _TABLE.format(
                merged.key,
                verdict.state,
                f"{seen.coverage:.1%}{trust}",
                f"{seen.low:.1%}..{seen.high:.1%}",
                f">={seen.unseen:.0f}",
                merged.pods,
                "yes" if verdict.may_enforce else "no",
                verdict.reason if len(verdict.reason) <= _NARROW else verdict.reason[: _NARROW - 1] + "…",
            ).rstrip()
        )


def _counts(merged: Merged) -> dict[str, Any]:
    return {
        "nodes": merged.nodes,
        "pods": merged.pods,
        "starts": merged.starts,
        "firstNs": merged.first_ns,
        "lastNs": merged.last_ns,
        "images": merged.images,
    }


def _document(merged: Merged, verdict: Verdict, shards: Sequence[Shard]) -> dict[str, Any]:
    return {
        "workload": merged.key,
        **_counts(merged),
        **verdict.document(),
        "observations": [to_document(to_record(each)) for each in shards],
    }


def _draft(
    merged: Merged,
    verdict: Verdict,
    settings: StreamConfig,
    action: Literal["alert", "enforce"],
    *,
    with_drift: bool,
) -> str:
    """The file's text.

    Raises:
        CommandError: No profile selects the workload, or it is not to be enforced yet.
    """
    if action == "enforce" and not verdict.may_enforce:
        missing = "; ".join(each.text for each in verdict.gate if not each.met)
        raise CommandError(
            f"{merged.key} is not to be enforced yet: {missing}", "draft it with --action alert"
        )
    wanted = Wanted(
        action=action,
        dry_run=action == "alert",
        with_drift=with_drift,
        resolvers=settings.correlate.names.trusted_resolvers,
        forbidden=settings.learn.forbidden_networks,
    )
    try:
        text = to_yaml(draft(merged, verdict, wanted))
        parse_profiles(text.encode(), merged.key)
    except DraftError as error:
        raise CommandError(str(error)) from error
    except ProfileError as error:
        raise CommandError(f"the draft of {merged.key} would be refused: {error}") from error
    return text


def _write(output: str, text: str) -> None:
    if output == "-":
        print(text, end="")
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror}") from error
    print(
        f"{output}: written; `nsp apply -f {output} --dry-run` checks it, without --dry-run it is published"
    )


def main() -> NoReturn:
    """Run the command line and exit, as cli.py does."""
    try:
        app(prog_name="nsp learn")
    except CommandError as error:
        print(f"nsp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
