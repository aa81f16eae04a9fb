# SPDX-License-Identifier: Apache-2.0
"""A pipeline as tests want it: responses armed, events to alerts in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from stream_apps.config.document import StreamConfig, parse
from stream_apps.correlate.pods import PodTable
from stream_apps.detect.observers import OBSERVER_IDS
from stream_apps.pipeline import Outcome, Pipeline
from tests.support.batches import pod_record

if TYPE_CHECKING:
    from stream_apps.detect.baseline import Baseline
    from stream_apps.detect.observer import Observer
    from tests.support.batches import Node, Record

Kind = TypeVar("Kind", bound="Observer")


def config(**sections: Any) -> StreamConfig:
    """A configuration whose responses are not a dry run, unless a section says so.

    Of the observers only those run that a section names: an attack made for one rule is often one for
    others too.
    """
    quiet = {each: {"enabled": False} for each in OBSERVER_IDS}
    return whole_config(**{**sections, "detect": {**quiet, **sections.get("detect", {})}})


def whole_config(**sections: Any) -> StreamConfig:
    """The same with all detectors as they come."""
    document = {**sections, "respond": {"dry_run": False, **sections.get("respond", {})}}
    return parse(yaml.safe_dump(document))


def pipeline(**sections: Any) -> Pipeline:
    """A pipeline that knows the pod of the batches."""
    pods = PodTable()
    pods.put(pod_record())
    return Pipeline(config(**sections), pods)


def whole_pipeline(baseline: Baseline | None = None, **sections: Any) -> Pipeline:
    """A pipeline with all detectors."""
    pods = PodTable()
    pods.put(pod_record())
    return Pipeline(whole_config(**sections), pods, baseline=baseline)


def observer(through: Pipeline, kind: type[Kind]) -> Kind:
    """The observer of a kind that a pipeline runs."""
    return next(each for each in through._observing._observers if isinstance(each, kind))


def run(node: Node, through: Pipeline | None = None) -> Outcome:
    """Everything the node saw since the last batch, through a pipeline."""
    return (through or pipeline()).process(node.batch(), node.wall_ns)


def rules(outcome: Outcome) -> list[tuple[str, str]]:
    """Rule and severity of each alert."""
    return [(each["rule_id"], each["severity"]) for each in outcome.alerts]


def subject(node: Node, index: int) -> str:
    """The enforcement subject of an image's process."""
    record: Record = node.images[index]
    return f"process/{node.boot_id}/{record['tgid']}/{record['start_ns']}"


def cut(outcome: Outcome) -> list[str]:
    """Subjects quarantined by an outcome."""
    return [each["subject"] for each in outcome.enforcements if each["quarantined"]]
