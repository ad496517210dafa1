"""Every request but those to score, as data."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from polyreward import measures, models
from polyreward._wire import Call, get, id_in_path, post, put
from polyreward.types import Attributes, Audience, Example, LabelledComparison, OnOverflow, Pair, Prompt, Step

GroupBy = str | Sequence[str] | None


def add_examples(
    user_id: str, examples: Sequence[Example], attributes: Attributes | None, idempotency_key: str | None
) -> Call[models.ExamplesReply]:
    """Every attempt carries the key that was made for the call, so the examples are stored once."""
    body = {"attributes": None if attributes is None else dict(attributes), "examples": list(examples)}
    key = idempotency_key or uuid.uuid4().hex
    path = f"/users/{id_in_path(user_id)}/examples"
    return post(path, body, models.ExamplesReply, {"idempotency-key": key})


def queries(
    user_id: str, pairs: Sequence[Pair], model: str | None, limit: int | None, on_overflow: OnOverflow | None
) -> Call[models.Queries]:
    body = {"pairs": list(pairs), "model": model, "limit": limit, "on_overflow": on_overflow}
    return post(f"/users/{id_in_path(user_id)}/queries", body, models.Queries)


def tournament(
    prompt: Prompt,
    responses: Sequence[str],
    audience: Audience,
    model: str | None,
    beta: float | None,
    on_overflow: OnOverflow | None,
) -> Call[models.Tournament]:
    body = {
        "prompt": prompt,
        "responses": list(responses),
        "audience": dict(audience),
        "model": model,
        "beta": beta,
        "on_overflow": on_overflow,
    }
    return post("/tournament", body, models.Tournament)


def user(user_id: str) -> Call[models.UserProfile]:
    return get(f"/users/{id_in_path(user_id)}", models.UserProfile)


def put_user(user_id: str, attributes: Attributes) -> Call[models.UserProfile]:
    return put(f"/users/{id_in_path(user_id)}", {"attributes": dict(attributes)}, models.UserProfile)


def delete_user(user_id: str) -> Call[None]:
    return _delete(f"/users/{id_in_path(user_id)}")


def delete_example(user_id: str, example_id: str) -> Call[None]:
    return _delete(f"/users/{id_in_path(user_id)}/examples/{id_in_path(example_id, 'an example id')}")


def _delete(path: str) -> Call[None]:
    # Where an answer was lost, "there is no such thing" says that it is done.
    return Call("DELETE", path, type(None), done_before=frozenset({404}))


def examples(user_id: str, limit: int | None, cursor: str | None) -> Call[models.Page[models.StoredExample]]:
    path = f"/users/{id_in_path(user_id)}/examples"
    return get(path, models.Page[models.StoredExample], limit=limit, cursor=cursor)


def users(limit: int | None, cursor: str | None) -> Call[models.Page[models.User]]:
    return get("/users", models.Page[models.User], limit=limit, cursor=cursor)


def groups(limit: int | None, cursor: str | None) -> Call[models.Page[models.Group]]:
    return get("/groups", models.Page[models.Group], limit=limit, cursor=cursor)


def models_page(limit: int | None, cursor: str | None) -> Call[models.ModelPage]:
    return get("/models", models.ModelPage, limit=limit, cursor=cursor)


def reload_models() -> Call[models.Reload]:
    return Call("POST", "/models/reload", models.Reload)


def set_default_model(model: str) -> Call[models.DefaultModel]:
    return put("/models/default", {"model": model}, models.DefaultModel)


def info() -> Call[models.Info]:
    return get("/info", models.Info)


def health() -> Call[models.Health]:
    return get("/health", models.Health)


def ready() -> Call[models.Ready]:
    return Call("GET", "/ready", models.Ready, also=frozenset({503}))


def accuracy(
    group_by: GroupBy, model: str | None, since: str | None, until: str | None, min_n: int | None
) -> Call[measures.Accuracy]:
    return get("/accuracy", measures.Accuracy, **_measured(group_by, model, since, until, min_n))


def accuracy_shots(
    group_by: GroupBy, model: str | None, since: str | None, until: str | None, min_n: int | None
) -> Call[measures.AccuracyByShots]:
    return get("/accuracy/shots", measures.AccuracyByShots, **_measured(group_by, model, since, until, min_n))


def accuracy_timeline(
    group_by: GroupBy, model: str | None, since: str | None, until: str | None, min_n: int | None, step: Step | None
) -> Call[measures.AccuracyTimeline]:
    asked = _measured(group_by, model, since, until, min_n)
    return get("/accuracy/timeline", measures.AccuracyTimeline, **asked, step=step)


def _measured(
    group_by: GroupBy, model: str | None, since: str | None, until: str | None, min_n: int | None
) -> dict[str, object]:
    return {"group_by": _keys(group_by), "model": model, "from": since, "to": until, "min_n": min_n}


def evaluate(
    comparisons: Sequence[LabelledComparison], group_by: GroupBy, model: str | None, min_n: int | None
) -> Call[measures.Accuracy]:
    keys = [group_by] if isinstance(group_by, str) else None if group_by is None else list(group_by)
    body = {"comparisons": list(comparisons), "group_by": keys, "model": model, "min_n": min_n}
    return post("/evaluate", body, measures.Accuracy)


def _keys(group_by: GroupBy) -> str | None:
    return group_by if group_by is None or isinstance(group_by, str) else ",".join(group_by)
