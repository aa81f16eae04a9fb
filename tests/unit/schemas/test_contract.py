# SPDX-License-Identifier: Apache-2.0
"""The contract itself: documented, sampled, and readable for ever."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from fastavro.validation import validate

from schemas import __main__ as command
from schemas import catalogue, codec
from schemas.catalogue import undocumented
from schemas.compatibility import incompatibilities
from schemas.documents import from_document, to_document
from schemas.errors import CodecError, DocumentError, SchemaError
from schemas.samples import Sample, load_samples, problem_with

if TYPE_CHECKING:
    from pathlib import Path

ALL = list(load_samples())


def by_file(sample: Sample) -> str:
    return f"{sample.name}-{sample.path.parent.name}-{sample.path.stem}"


@pytest.mark.parametrize("name", sorted(catalogue.current()))
def test_every_record_enum_and_field_says_what_it_means(name: str) -> None:
    assert undocumented(catalogue.schema(name).parsed) == []


def test_a_field_without_a_doc_is_found_at_any_depth() -> None:
    parsed = copy.deepcopy(catalogue.schema("EventBatch").parsed)
    fields = {field["name"]: field for field in parsed["fields"]}
    del fields["events"]["type"]["items"][0]["fields"][2]["doc"]
    assert undocumented(parsed) == ["nsp.SocketConnect.process"]


@pytest.mark.parametrize("sample", ALL, ids=by_file)
def test_a_sample_is_read_or_refused_as_it_should_be(sample: Sample) -> None:
    assert problem_with(sample) is None


@pytest.mark.parametrize("sample", [each for each in ALL if each.reason is None], ids=by_file)
def test_fastavro_finds_a_valid_sample_valid_and_it_survives_the_way_to_json_and_back(sample: Sample) -> None:
    record = sample.record()
    assert validate(record, catalogue.schema(sample.name).parsed, strict=True)
    document = json.loads(json.dumps(to_document(record)))
    assert from_document(sample.name, document) == record


def test_every_event_kind_is_in_some_valid_sample() -> None:
    fields = {field["name"]: field for field in catalogue.schema("EventBatch").parsed["fields"]}
    kinds = {branch["name"] for branch in fields["events"]["type"]["items"]}
    batches = [each.record() for each in load_samples("EventBatch") if each.reason is None]
    assert {name for batch in batches for name, _ in batch["events"]} == kinds


def test_a_sample_that_is_wrong_about_itself_is_found() -> None:
    good = next(each for each in ALL if each.name == "Pod" and each.reason is None)
    wrongly_invalid = Sample("Pod", good.path, good.document, "Pod.uid: missing")
    wrongly_valid = Sample("Pod", good.path, {}, None)
    other_reason = Sample("Pod", good.path, {}, "Pod.ips: expected a list")
    assert problem_with(wrongly_invalid) == "should be refused, but it is valid"
    assert "should be valid: Pod.uid: missing" in str(problem_with(wrongly_valid))
    assert "refused for another reason" in str(problem_with(other_reason))


def test_defaults_are_filled_in_and_other_fields_are_not() -> None:
    minimal = {"topic": "t", "partition": 0, "offset": 1, "stage": "decode", "reason": "r", "failed_at_ns": 1}
    assert from_document("DeadLetter", minimal)["key"] is None
    with pytest.raises(DocumentError, match=r"DeadLetter\.reason: missing"):
        from_document("DeadLetter", {key: value for key, value in minimal.items() if key != "reason"})


def test_current_schemas_read_every_release() -> None:
    assert incompatibilities(catalogue.current(), catalogue.archived()) == []


def changed(name: str, change: Any, directory: Path) -> catalogue.Schema:
    document = json.loads(catalogue.schema(name).text)
    change({field["name"]: field for field in document["fields"]}, document)
    path = directory / "changed.avsc"
    path.write_text(json.dumps(document))
    return catalogue.load_schema(path, "0.0.1")


def without(field_name: str) -> Any:
    def change(_: Any, document: Any) -> None:
        document["fields"] = [field for field in document["fields"] if field["name"] != field_name]

    return change


def retyped(field_name: str, to: Any) -> Any:
    return lambda fields, _: fields[field_name].update(type=to)


def required(field_name: str) -> Any:
    def change(fields: Any, _: Any) -> None:
        fields[field_name]["type"] = "string"
        del fields[field_name]["default"]

    return change


def event_field_less(fields: Any, _: Any) -> None:
    fields["events"]["type"]["items"][0]["fields"].pop()


def event_kind_less(fields: Any, _: Any) -> None:
    fields["events"]["type"]["items"].pop()


def symbol_more(fields: Any, _: Any) -> None:
    fields["outcome"]["type"]["symbols"].append("PONDERED")


@pytest.mark.parametrize(
    ("name", "old", "expected"),
    [
        ("Pod", without("ips"), "reader_field_missing_default_value at /fields/8 (ips)"),
        ("Pod", retyped("uid", "long"), "type_mismatch at /fields/0/type"),
        ("Pod", retyped("name", ["null", "string"]), "type_mismatch"),
        ("EnforcementStatus", retyped("processes", "long"), "type_mismatch at /fields/6/type"),
        ("EnforcementStatus", symbol_more, "missing_enum_symbols at /fields/4/type/symbols ({'PONDERED'})"),
        ("EventBatch", event_field_less, "missing_union_branch at /fields/11/type/items/0"),
    ],
)
def test_what_cannot_be_read_any_more_is_named(name: str, old: Any, expected: str, tmp_path: Path) -> None:
    (found,) = incompatibilities(catalogue.current(), [changed(name, old, tmp_path)])
    assert found.startswith(f"{name} of 0.0.1 is not readable: {expected}")


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("Pod", without("owner_kind")),
        ("Pod", required("owner_kind")),
        ("Enforcement", retyped("generation", "int")),
        ("EventBatch", event_kind_less),
    ],
)
def test_what_can_still_be_read_is_left_alone(name: str, old: Any, tmp_path: Path) -> None:
    assert incompatibilities(catalogue.current(), [changed(name, old, tmp_path)]) == []


def test_a_record_that_disappears_is_named(tmp_path: Path) -> None:
    old = changed("Pod", lambda _, document: document.update(name="Container"), tmp_path)
    (problem,) = incompatibilities(catalogue.current(), [old])
    assert "its messages are unreadable" in problem


def test_a_message_of_a_released_schema_is_read_as_todays_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = changed("Pod", without("owner_kind"), tmp_path)
    record = next(each for each in load_samples("Pod") if each.reason is None).record()
    monkeypatch.setattr(codec, "_writer", lambda _: (codec.MARKER + old.fingerprint, old.parsed))
    data = codec.encode("Pod", record)
    with pytest.raises(CodecError, match="never released"):
        codec.decode(data)
    monkeypatch.setattr(codec, "by_fingerprint", lambda: {old.fingerprint: old})
    assert codec.decode(data) == ("Pod", {**record, "owner_kind": None})


def test_a_damaged_schema_file_is_named(tmp_path: Path) -> None:
    for text in ("{", '{"type": "recrd", "name": "X", "fields": []}'):
        (tmp_path / "x.avsc").write_text(text)
        with pytest.raises(SchemaError, match=r"x\.avsc: not a readable Avro schema"):
            catalogue.load_schema(tmp_path / "x.avsc", "current")


def test_a_release_is_archived_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RELEASED", tmp_path)
    assert command.main(["release", "1.2.0"]) == 0
    assert {each.name for each in catalogue.archived(tmp_path)} == set(catalogue.current())
    assert {each.origin for each in catalogue.archived(tmp_path)} == {"1.2.0"}
    with pytest.raises(SchemaError, match="never edited"):
        command.release("1.2.0")


def test_releases_come_in_the_order_of_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RELEASED", tmp_path)
    for version in ("0.10.0", "0.9.0"):
        command.release(version)
    assert next(each.origin for each in catalogue.archived(tmp_path)) == "0.9.0"


def test_the_command_says_that_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["check"]) == 0
    assert "all as they should be" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Sample("Pod", ALL[0].path, {}, None)
    monkeypatch.setattr(command, "load_samples", lambda name=None: [wrong] if name == "Pod" else [])
    assert command.main(["check"]) == 1
    complaints = capsys.readouterr().err
    assert "should be valid: Pod.uid: missing" in complaints
    assert "Alert: needs a valid and an invalid sample" in complaints
