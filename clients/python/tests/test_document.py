"""The client's types are those of the server's OpenAPI document; what differs is named.

Each operation's request and answer are walked beside the document's schemas. A field, a type, or an operation that one
side has and the other has not is a failure.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from servers import REPOSITORY
from typing_extensions import get_type_hints, is_typeddict

from polyreward import measures, models
from polyreward import types as sent

DOCUMENT = json.loads((REPOSITORY / "openapi/openapi.json").read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]

ANSWERS: dict[tuple[str, str], Any] = {
    ("post", "/score"): models.ScoreReply[models.AnyResult],
    ("post", "/users/{user_id}/examples"): models.ExamplesReply,
    ("get", "/users/{user_id}/examples"): models.Page[models.StoredExample],
    ("delete", "/users/{user_id}/examples/{example_id}"): None,
    ("post", "/users/{user_id}/queries"): models.Queries,
    ("post", "/tournament"): models.Tournament,
    ("get", "/users/{user_id}"): models.UserProfile,
    ("put", "/users/{user_id}"): models.UserProfile,
    ("delete", "/users/{user_id}"): None,
    ("get", "/users"): models.Page[models.User],
    ("get", "/groups"): models.Page[models.Group],
    ("get", "/models"): models.ModelPage,
    ("post", "/models/reload"): models.Reload,
    ("put", "/models/default"): models.DefaultModel,
    ("get", "/info"): models.Info,
    ("get", "/health"): models.Health,
    ("get", "/ready"): models.Ready,
    ("get", "/accuracy"): measures.Accuracy,
    ("get", "/accuracy/shots"): measures.AccuracyByShots,
    ("get", "/accuracy/timeline"): measures.AccuracyTimeline,
    ("post", "/evaluate"): measures.Accuracy,
}
# For browsers, Prometheus and Kubernetes, and other names of the same.
NOT_FOR_CLIENTS = {"/docs", "/openapi.json", "/metrics", "/livez", "/ping", "/readyz", "/v1/score"}
NOT_FOR_CLIENTS |= {"/v2/health/live", "/v2/health/ready"}
# Pages for people, and the formats of other servers.
NOT_FOR_CLIENTS |= {
    path
    for path, methods in DOCUMENT["paths"].items()
    if {tag for operation in methods.values() for tag in operation["tags"]} <= {"dashboard", "compatibility"}
}
# What the path of a format of ours shares with another server's.
OURS = {("post", "/score"): ("ScoreRequest", "ScoreReply")}

# What a call takes, by the property of the body.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/score"): {
        "pairs": Sequence[sent.Pair] | None,
        "items": Sequence[sent.Item] | None,
        "user_id": str | None,
        "user_ids": Sequence[str] | None,
        "audience": sent.Audience | None,
        "model": str | None,
        "reward_scale": sent.RewardScale | None,
        "on_overflow": sent.OnOverflow | None,
        "partial": bool | None,
    },
    ("post", "/users/{user_id}/examples"): {
        "attributes": sent.Attributes | None,
        "examples": Sequence[sent.Example],
    },
    ("post", "/users/{user_id}/queries"): {
        "pairs": Sequence[sent.Pair],
        "model": str | None,
        "limit": int | None,
        "on_overflow": sent.OnOverflow | None,
    },
    ("post", "/tournament"): {
        "prompt": sent.Prompt,
        "responses": Sequence[str],
        "audience": sent.Audience,
        "model": str | None,
        "beta": float | None,
        "on_overflow": sent.OnOverflow | None,
    },
    ("put", "/users/{user_id}"): {"attributes": sent.Attributes},
    ("put", "/models/default"): {"model": str},
    ("post", "/evaluate"): {
        "model": str | None,
        "group_by": Sequence[str] | None,
        "min_n": int | None,
        "comparisons": Sequence[sent.LabelledComparison],
    },
}


def operations() -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "put", "post", "delete", "patch"):
                yield (method, path), operation


def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema behind references and `allOf`."""
    found = dict(schema)
    if "$ref" in found:
        found = resolved(SCHEMAS[found["$ref"].rsplit("/", 1)[1]])
    if "allOf" in found:
        parts = [resolved(part) for part in found.pop("allOf")]
        found["type"] = "object"
        found["properties"] = {name: value for part in parts for name, value in part["properties"].items()}
        found["required"] = [name for part in parts for name in part.get("required", [])]
    return found


def alternatives(schema: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """What a value can be, and whether it can be null."""
    found = resolved(schema)
    kinds = found.get("type")
    if isinstance(kinds, list):
        return [{**found, "type": kind} for kind in kinds if kind != "null"], "null" in kinds
    if "oneOf" in found:
        inner = [alternatives(option) for option in found["oneOf"]]
        flat = [option for options, _ in inner for option in options]
        return flat, any(nullable for _, nullable in inner) or {"type": "null"} in found["oneOf"]
    return ([], True) if kinds == "null" else ([found], False)


def compare(where: str, kind: Any, schema: Mapping[str, Any]) -> None:
    """Fails where a Python type is not that of a schema."""
    options, nullable = alternatives(schema)
    members = list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]
    assert (type(None) in members) == nullable, f"{where}: whether it can be null"
    members = [member for member in members if member is not type(None)]
    if len(members) > 1 or len(options) > 1:
        assert len(members) == len(options), f"{where}: {members} beside {options}"
        for member in members:
            assert any(agrees(member, option) for option in options), f"{where}: {member} is not in the document"
        return
    compare_one(where, members[0], options[0])


def agrees(kind: Any, schema: Mapping[str, Any]) -> bool:
    try:
        compare_one("", kind, schema)
    except AssertionError:
        return False
    return True


def compare_one(where: str, kind: Any, schema: Mapping[str, Any]) -> None:
    if kind is Any:
        assert schema == {}, f"{where}: anything beside {schema}"
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {
            field.alias or name: (field.annotation, field.is_required()) for name, field in kind.model_fields.items()
        }
        compare_fields(where, fields, schema)
    elif is_typeddict(kind):
        compare_fields(where, typed_dict_fields(kind), schema)
    elif get_origin(kind) is Literal:
        assert set(get_args(kind)) == set(schema["enum"]), where
    elif get_origin(kind) in (list, Sequence):
        assert schema["type"] == "array", where
        compare(f"{where}/*", get_args(kind)[0], schema["items"])
    elif get_origin(kind) in (dict, Mapping):
        assert schema["type"] == "object", where
        compare(f"{where}/*", get_args(kind)[1], schema["additionalProperties"])
    else:
        names = {str: "string", float: "number", int: "integer", bool: "boolean"}
        assert schema.get("type") == names[kind], f"{where}: {kind} beside {schema}"


def compare_fields(where: str, fields: Mapping[str, tuple[Any, bool]], schema: Mapping[str, Any]) -> None:
    assert schema.get("type") == "object", where
    assert "properties" in schema, where
    assert fields.keys() == schema["properties"].keys(), f"{where}: fields"
    for name, (kind, required) in fields.items():
        assert required == (name in schema.get("required", [])), f"{where}/{name}: whether it is always there"
        given = schema["properties"][name]
        options, nullable = alternatives(given)
        if not required and not nullable and type(None) in get_args(kind):
            # What may be left out is None here.
            given = {"oneOf": [*options, {"type": "null"}]}
        compare(f"{where}/{name}", kind, given)


def typed_dict_fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(kind)
    return {name: (hint, name in kind.__required_keys__) for name, hint in hints.items()}


def reply_schema(operation: Mapping[str, Any]) -> Any:
    answer = next(
        operation["responses"][status] for status in ("200", "201", "204") if status in operation["responses"]
    )
    return answer.get("content", {}).get("application/json", {}).get("schema")


def test_every_operation_is_known() -> None:
    unknown = [key for key, _ in operations() if key[1] not in NOT_FOR_CLIENTS and key not in ANSWERS]
    assert unknown == []
    assert set(ANSWERS) <= {key for key, _ in operations()}


@pytest.mark.parametrize(("key", "operation"), [pytest.param(*found, id=" ".join(found[0])) for found in operations()])
def test_an_answer_is_as_documented(key: tuple[str, str], operation: dict[str, Any]) -> None:
    if key[1] in NOT_FOR_CLIENTS:
        return
    kind = ANSWERS[key]
    schema = SCHEMAS[OURS[key][1]] if key in OURS else reply_schema(operation)
    if kind is None:
        assert schema is None
    else:
        compare(" ".join(key), kind, schema)


@pytest.mark.parametrize(("key", "operation"), [pytest.param(*found, id=" ".join(found[0])) for found in operations()])
def test_what_is_sent_is_as_documented(key: tuple[str, str], operation: dict[str, Any]) -> None:
    if key[1] in NOT_FOR_CLIENTS:
        return
    if "requestBody" not in operation:
        assert key not in BODIES
        return
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    schema = SCHEMAS[OURS[key][0]] if key in OURS else resolved(body)
    fields = {name: (kind, name in schema.get("required", [])) for name, kind in BODIES[key].items()}
    compare_fields(" ".join(key), fields, schema)


def test_a_problem_is_as_documented() -> None:
    compare("Problem", models.Problem, SCHEMAS["Problem"])
    compare("RefusedResult", models.RefusedResult, SCHEMAS["RefusedResult"])


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: schema["properties"].pop("detail"),
        lambda schema: schema["properties"].update(more={"type": "string"}),
        lambda schema: schema["properties"].update(status={"type": "string"}),
        lambda schema: schema["required"].remove("title"),
        lambda schema: schema["properties"].update(title={"type": ["string", "null"]}),
        lambda schema: schema["properties"].update(limit={"$ref": "#/components/schemas/Health"}),
    ],
)
def test_a_difference_is_found(change: Any) -> None:
    schema = json.loads(json.dumps(SCHEMAS["Problem"]))
    change(schema)
    with pytest.raises(AssertionError):
        compare("Problem", models.Problem, schema)
