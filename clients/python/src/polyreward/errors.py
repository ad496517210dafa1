"""What can go wrong, as exceptions. None of them holds a key, a prompt or a response."""

from __future__ import annotations

from polyreward.models import InputFault, Problem

_FAULTS_IN_MESSAGE = 3


class PolyrewardError(Exception):
    """Anything that went wrong between here and the server's answer."""


class NoAnswer(PolyrewardError):
    """The server could not be reached, or broke off; the cause is the exception of httpx."""


class ReplyTimeout(NoAnswer):
    """The answer did not come within the timeout. It is the caller's own limit, so it is not tried again."""


class InvalidReply(PolyrewardError):
    """An answer that is not what the server's document promises: another server, proxy or version."""


class ProblemError(PolyrewardError):
    """The server refused, with problem+json (RFC 9457)."""

    def __init__(self, problem: Problem, request_id: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(_message(problem))
        self.problem = problem
        #: The server's name of the request, as in its logs.
        self.request_id = request_id
        #: When the server said that another attempt makes sense.
        self.retry_after_s = retry_after_s

    @property
    def type(self) -> str:
        """The kind of problem, a URI reference such as `/problems/overloaded`."""
        return self.problem.type

    @property
    def title(self) -> str:
        """The kind of problem in words."""
        return self.problem.title

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def detail(self) -> str | None:
        """What happened this time."""
        return self.problem.detail

    @property
    def errors(self) -> list[InputFault]:
        """An entry for each wrong part of the request; pointers are into what the caller gave, however it was sent."""
        return self.problem.errors

    def __reduce__(self) -> tuple[object, ...]:
        """Trainers send exceptions from process to process."""
        return type(self), (self.problem, self.request_id, self.retry_after_s)


class BadRequest(ProblemError):
    """400: not JSON, or a header or query parameter is wrong."""


class Unauthorized(ProblemError):
    """401: no key, or one that is not known."""


class Forbidden(ProblemError):
    """403: the key does not allow it."""


class NotFound(ProblemError):
    """404: no such person, example or route."""


class Conflict(ProblemError):
    """409: an idempotency key that was used for something else, or more examples than are kept of a person."""


class TooLarge(ProblemError):
    """413: more than the server takes at once; `problem.limit` names the limit."""


class InvalidInput(ProblemError):
    """422: `errors` says what is wrong with which part of the input."""


class RateLimited(ProblemError):
    """429: the key's own quota, after as many attempts as were allowed."""


class ServerError(ProblemError):
    """5xx: the server's fault or a dependency's."""


class Unavailable(ServerError):
    """503: too much to do, starting or stopping, after as many attempts as were allowed."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidInput,
    429: RateLimited,
    503: Unavailable,
}


def problem_error(problem: Problem, request_id: str | None, retry_after_s: float | None) -> ProblemError:
    """The exception for a problem."""
    kind = _BY_STATUS.get(problem.status, ServerError if problem.status >= 500 else ProblemError)
    return kind(problem, request_id, retry_after_s)


def _message(problem: Problem) -> str:
    parts = [f"{problem.status} {problem.title}"]
    if problem.detail:
        parts.append(problem.detail)
    parts += [f"{fault.where}: {fault.detail}" for fault in problem.errors[:_FAULTS_IN_MESSAGE]]
    if len(problem.errors) > _FAULTS_IN_MESSAGE:
        parts.append(f"and {len(problem.errors) - _FAULTS_IN_MESSAGE} more")
    return "; ".join(parts)
