"""Runs over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from samd_gateway import runs_query, runs_table
from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.answers import RunOut, RunsOut
from samd_gateway.errors import NotFoundError, UsageError
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented
from samd_protocol.messages import RunSpec
from samd_protocol.runspec import logit_adjustment, problems

RunId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]


class RunRequest(BaseModel):
    """What a run is to do. Deadlines in seconds. Without `devices` all that are online are asked."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"rounds": 20, "epochs": 5, "quorum": 8}]}
    )

    task: str = "severity"
    rounds: int = Field(20, description="1 to 10,000")
    epochs: int = Field(5, description="Local epochs in each round")
    learning_rate: float = 0.01
    proximal_mu: float = Field(0.0, description="Weight of FedProx's proximal term")
    mask_rate: float = Field(0.15, description="Share of signs that are hidden in training rows")
    logit_adjustment: float = Field(1.0, description="Left out, it is 0 for deterioration")
    strategy: str = Field("FedAvg", description="A strategy of flwr.serverapp.strategy")
    quorum: int = Field(1, description="How many devices must take part, and must reply in each round")
    admission_deadline_s: float = 15.0
    round_deadline_s: float = 60.0
    seed: int = Field(0, ge=-(2**63), le=2**63 - 1)
    optimizer: str = Field("adam", description="What a device learns by: adam, or sgd")
    name: str = Field("", max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$", description="A label for people")
    strategy_settings: dict[str, float] = Field({}, description="Hyper-parameters of the strategy")
    weighting: str = Field("examples", description="What a reply counts by: examples, or severe")
    method: str = Field("none", description="How devices personalise: none, finetune, fedprox, ditto, ...")
    personal_epochs: int = Field(0, description="Epochs of the personal vector; 0: as many as epochs")
    personal_learning_rate: float = Field(0.0, description="0: the run's learning rate")
    personal_mu: float = Field(0.0, description="Pull of the personal vector to the global one")
    personal_alpha: float = Field(0.5, description="APFL's share of the personal model")
    personal_alpha_rate: float = Field(0.0, description="How fast that share moves; 0: it stays")
    rehearsal: int = Field(0, description="Rows of the forgetting grid among the personal ones")
    devices: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(
        None, min_length=1, max_length=100_000, description="Whom to ask; null for all that are online"
    )

    def spec(self) -> RunSpec:
        """Raises UsageError for a value out of its range, and for what does not go together."""
        try:
            given = self.model_dump(exclude={"devices"})
            if "logit_adjustment" not in self.model_fields_set:
                given["logit_adjustment"] = logit_adjustment(self.task)
            spec = RunSpec(**given)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if found := problems(spec):
            raise UsageError("; ".join(found))
        return spec


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/runs."""
    api = APIRouter(prefix="/api/runs", tags=["runs"])

    def answer(run: str) -> RunOut:
        with gateway.database.read() as connection:
            found = runs_query.run(
                connection,
                run,
                gateway.now(),
                gateway.states(),
                link_down_since=gateway.link.down_since,
            )
        if found is None:
            raise NotFoundError(f"no run {run[:64]!r} here; GET /api/runs lists them")
        return found

    read = [Depends(needs("read"))]
    may_run = Annotated[Actor, Depends(needs("runs"))]

    @api.post("", status_code=201, responses=documented(401, 403, 404, 409, 422, 503))
    def start(request: RunRequest, actor: may_run) -> RunOut:
        """Begin the admission of a run. 409 while another is going on, without server or devices."""
        run = gateway.runs.begin(request.spec(), request.devices, actor)
        gateway.metrics.runs.inc()
        return answer(run)

    @api.get("", dependencies=read, responses=documented(401, 403, 422, 503))
    def runs(limit: int = Query(20, ge=1, le=200)) -> RunsOut:
        """The latest runs first; `current` is the one that is going on."""
        with gateway.database.read() as connection:
            return RunsOut(
                runs=runs_query.runs(
                    connection,
                    gateway.now(),
                    gateway.states(),
                    link_down_since=gateway.link.down_since,
                    limit=limit,
                ),
                current=runs_table.current(connection),
            )

    @api.get("/{run}", dependencies=read, responses=documented(401, 403, 404, 422, 503))
    def one(run: RunId) -> RunOut:
        """One run: where it stands, whom it waits for and why, and every round so far."""
        return answer(run)

    @api.post("/{run}/stop", status_code=202, responses=documented(401, 403, 404, 409, 422, 503))
    def stop(run: RunId, actor: may_run) -> RunOut:
        """Stop a run; the model in use stays."""
        gateway.runs.end(run, actor)
        return answer(run)

    return api
