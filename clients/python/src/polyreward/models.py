"""What is answered. The names are those of the server's OpenAPI document; a test compares the two.

A field that a newer server adds is kept and does no harm. A field that is missing, or has another type, is an error:
a reward that cannot be read is never a number.
"""

from __future__ import annotations

from typing import Any, Generic

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from typing_extensions import TypeVar

from polyreward.types import Message


class Reply(BaseModel):
    """Part of an answer. Numbers are finite, and never made from strings."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


# Errors


class InputFault(Reply):
    """What is wrong with one part of a request."""

    type: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None

    @property
    def where(self) -> str:
        """The part: a JSON Pointer, or the name of a parameter or header."""
        return self.pointer or self.parameter or self.header or "request"


class ExceededLimit(Reply):
    """The configured limit that a request went over."""

    name: str
    value: int


class Problem(Reply):
    """A problem, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str | None = None
    errors: list[InputFault] = Field(default_factory=list)
    limit: ExceededLimit | None = None


# Scores


class PairResult(Reply):
    """The rewards of a pair."""

    reward_a: float
    reward_b: float
    preference: float
    uncertainty: float
    truncated: bool


class PairResultOfUsers(Reply):
    """The rewards of a pair for each of `user_ids`, in their order."""

    reward_a: list[float]
    reward_b: list[float]
    preference: list[float]
    uncertainty: list[float]
    truncated: bool


class ItemResult(Reply):
    """The rewards of an item: a reward a response, and positions from the best to the worst."""

    rewards: list[float]
    uncertainties: list[float]
    ranking: list[int]
    truncated: bool


class ItemResultOfUsers(Reply):
    """The rewards of an item for each of `user_ids`: `[user][response]`."""

    rewards: list[list[float]]
    uncertainties: list[list[float]]
    ranking: list[list[int]]
    truncated: bool


class Aggregates(Reply):
    """A number a response under each aggregate asked for."""

    mean: list[float] | None = None
    min: list[float] | None = None
    p20: list[float] | None = None
    share: list[float] | None = None
    softmin: list[float] | None = None
    nash: list[float] | None = None
    maxmin: list[float] | None = None


class AudienceResult(Reply):
    """What an audience makes of a pair or an item. `preference` and `uncertainty` are of a pair."""

    aggregates: Aggregates
    ranking: list[int]
    truncated: bool
    #: `[group][response]`: the mean of each group, where several were asked for.
    groups: list[list[float]] = []
    preference: float | None = None
    uncertainty: float | None = None


class RefusedResult(Reply):
    """In place of a result, with `partial`."""

    error: InputFault


AnyResult = PairResult | PairResultOfUsers | ItemResult | ItemResultOfUsers | AudienceResult | RefusedResult

Result = TypeVar("Result", covariant=True, default=AnyResult)


class ScoredUser(Reply):
    """Whose reward it is. `known` is false for a person without examples, who has the population's reward."""

    user_id: str
    examples: int
    known: bool


class ScoredAudience(Reply):
    """Whose rewards they are together."""

    users: int
    left_out: int | None = None
    #: Of `users`, those of each group, where several were asked for.
    groups: list[int] = []
    #: The group that is worst off over the call, by position, where `maxmin` was asked for.
    worst_off: int | None = None


class Usage(Reply):
    """What the answer cost: distinct texts, their tokens, and how many embeddings were known."""

    texts: int
    tokens: int
    embeddings_cached: int


class ScoreReply(Reply, Generic[Result]):
    """A result for each pair or item, in the order of the request."""

    model: str
    backbone: str
    results: list[Result]
    usage: Usage
    user: ScoredUser | None = None
    users: list[ScoredUser] | None = None
    audience: ScoredAudience | None = None
    _state_versions: tuple[str, ...] = PrivateAttr(default=())

    @property
    def state_versions(self) -> tuple[str, ...]:
        """What the state was derived from, opaque; several where it changed between the parts of a request."""
        return self._state_versions


class Query(Reply):
    """A pair that the person could be asked about; `index` is its position in `pairs`."""

    index: int
    information_gain: float
    preference: float
    uncertainty: float
    truncated: bool


class Queries(Reply):
    """The pairs, from the one whose answer would tell most."""

    model: str
    backbone: str
    user: ScoredUser
    queries: list[Query]
    usage: Usage


# People


class Prediction(Reply):
    """What one model said of an example before it learned from it."""

    example_id: str
    model: str
    preference: float
    correct: bool


class StateSummary(Reply):
    """What one model believes of a person after their examples; an uncertainty of 1 knows nothing."""

    examples: int
    uncertainty: float


class ExamplesReply(Reply):
    """What became of posted examples."""

    user_id: str
    accepted: int
    duplicates: int
    examples: int
    example_ids: list[str]
    predictions: list[Prediction]
    states: dict[str, StateSummary]
    state_version: str
    _replayed: bool = PrivateAttr(default=False)

    @property
    def replayed(self) -> bool:
        """Whether it is the answer of an earlier request with the same idempotency key."""
        return self._replayed


class StoredExample(Reply):
    """A stored example."""

    id: str
    prompt: str | list[Message]
    chosen: str
    rejected: str
    strength: float
    label_confidence: float
    rationale: str | None
    created_at: str


class User(Reply):
    """Somebody whose comparisons are stored."""

    user_id: str
    attributes: dict[str, str]
    examples: int
    state_version: str
    created_at: str
    updated_at: str


class AccuracySoFar(Reply):
    """How often a model was right about a person before it learned."""

    n: int
    accuracy: float
    population_accuracy: float


class Weight(Reply):
    """One number of a state."""

    mean: float
    deviation: float
    population: float


class UserState(Reply):
    """What one model believes of a person."""

    head: str
    examples: int
    summary: str
    uncertainty: float
    weights: list[Weight]
    accuracy: AccuracySoFar | None
    unusable: str | None


class UserProfile(User):
    """One person: what is known, and what each model believes, by `name@version`."""

    states: dict[str, UserState]


class Group(Reply):
    """All people with one value of one attribute."""

    key: str
    value: str
    users: int


# Models and the server


class ModelBackbone(Reply):
    """The backbone that a model was trained on."""

    name: str
    hash: str
    dim: int


class TrainingData(Reply):
    """What a model was trained on."""

    sha256: str
    people: int
    comparisons: int
    validation_people: int
    validation_comparisons: int
    held_out_comparisons: int


class RewardStatistics(Reply):
    """The population reward over the training responses: the `standard` scale."""

    mean: float
    standard_deviation: float
    responses: int


class EvaluationSummary(Reply):
    """Accuracy and calibration over some people."""

    users: int
    n: int
    accuracy: float
    user_accuracy: float
    log_loss: float
    ece: float
    accuracy_ci: list[float] | None = None
    user_accuracy_ci: list[float] | None = None


class Evaluation(Reply):
    """How the population did on what it was not trained on; None where there was nothing."""

    seen_people: EvaluationSummary | None = None
    validation: EvaluationSummary | None = None


class Model(Reply):
    """A trained head."""

    model: str
    name: str
    version: str
    head: str
    default: bool
    backbone: ModelBackbone
    hyperparameters: dict[str, Any]
    seed: int
    training_data: TrainingData
    reward_statistics: RewardStatistics
    calibration_temperature: float
    evaluation: Evaluation
    weights_sha256: str
    polyreward_version: str


class FailedModel(Reply):
    """A model folder that could not be loaded."""

    folder: str
    detail: str
    still_serving: bool


class Reload(Reply):
    """What a rescan changed."""

    added: list[str]
    removed: list[str]
    failed: list[FailedModel]


class DefaultModel(Reply):
    """The model that answers when none is named."""

    model: str


class Limits(Reply):
    """What the server takes."""

    max_batch: int
    max_tokens: int
    max_users: int
    max_rewards: int
    max_pending_cells: int
    max_examples: int
    max_body_bytes: int
    max_pending_body_bytes: int
    max_in_flight: int
    request_timeout_ms: int
    #: People that a group has at least to be shown in an answer about accuracy.
    min_users: int


class Backbone(Reply):
    """The frozen encoder."""

    name: str
    hash: str
    dim: int
    max_tokens: int
    licence: str | None = None
    precision: str | None = None
    source: str | None = None


class EmbeddingCache(Reply):
    """Embeddings that are kept."""

    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int


class Queue(Reply):
    """What waits."""

    texts: int


class Winners(Reply):
    """Positions of the winners of a tournament by each rule; the first of several."""

    condorcet: int | None
    borda: int
    copeland: int
    maximal_lottery: int
    mean: int
    min: int


class RegularizedEquilibrium(Reply):
    """The equilibrium of a tournament regularised towards the uniform lottery by `beta`."""

    beta: float
    lottery: list[float]
    #: By how much the audience's best answer beats it.
    exploitability: float


class Tournament(Reply):
    """Who wins among responses to one prompt, by rules that may disagree. Lists are by response, matrices `[a][b]`."""

    model: str
    backbone: str
    audience: ScoredAudience
    preference: list[list[float]]
    uncertainty: list[list[float]]
    condorcet_winner: int | None
    borda: list[float]
    copeland: list[float]
    maximal_lottery: list[float]
    regularized: RegularizedEquilibrium
    mean: list[float]
    min: list[float]
    winners: Winners
    unanimous: bool
    usage: Usage


class Info(Reply):
    """What this server is, and what it takes."""

    name: str
    version: str
    backbone: Backbone
    models: list[str]
    limits: Limits
    embedding_cache: EmbeddingCache
    queue: Queue
    #: What follows says it in the words of text-embeddings-inference.
    max_input_length: int
    max_client_batch_size: int
    max_concurrent_requests: int
    auto_truncate: bool
    default_model: str | None = None
    model_id: str | None = None


class Health(Reply):
    """The process is alive."""

    status: str


class ReadyChecks(Reply):
    """What must hold for the server to be ready."""

    backbone: bool
    database: bool
    models: bool
    accepting: bool


class Ready(Reply):
    """Whether the server can score."""

    ready: bool
    checks: ReadyChecks


# Pages

Entry = TypeVar("Entry", covariant=True)


class Page(Reply, Generic[Entry]):
    """A page of a list; `next_cursor` asks for the next one and is None on the last."""

    items: list[Entry]
    next_cursor: str | None


class ModelPage(Page[Model]):
    """A page of models, with every folder that could not be loaded."""

    failed: list[FailedModel]
