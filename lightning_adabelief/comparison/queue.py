"""The queue of a comparison's trials, kept by Optuna so that any number of workers can share it.

A stage is an Optuna study named ``<comparison>:<stage>``. Its user attributes hold the stage's list of trials; those
of an Optuna trial hold our trial, its worker and its outcome. Optuna proposes nothing: all its trials are enqueued.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from lightning_adabelief.comparison.progress import Progress
from lightning_adabelief.comparison.storage import import_optuna, open_storage
from lightning_adabelief.comparison.trial import Outcome, Trial
from lightning_adabelief.comparison.worker_process import WorkerProcess

if TYPE_CHECKING:
    import optuna

BEAT_SECONDS = 20
"""The time from one sign of life of a running trial's worker to the next."""

STALE_SECONDS = 180
"""The time without a sign of life after which a worker on another machine counts as dead."""

UNCLAIMED_SECONDS = 10
"""The time that a worker has, after it took a trial, to write its name to it."""

PLAN = "plan"
"""The name, in place of a stage's, of the study that keeps a comparison's plan."""


@dataclass(frozen=True)
class Ticket:
    """The right to run a trial, which one worker holds.

    Attributes:
        trial: What to run.
        claim: Optuna's side of it.
        worker: Who runs it.
    """

    trial: Trial
    claim: optuna.Trial
    worker: WorkerProcess


class TicketLost(Exception):
    """The trial was given to another worker: this one gave no sign of life for :data:`STALE_SECONDS`."""


class Queue:
    """The trials of a comparison, each of which is run exactly once, by whichever worker takes it.

    Every method may be called by several workers at once, and a worker may be killed within any of them.

    Args:
        storage: The path of a journal file, or the URL of a database.
        comparison: The comparison's identifier; a database can hold several comparisons.

    Raises:
        PlanError: If Optuna or the database's driver is missing, or the file or the database can't be opened.
    """

    def __init__(self, storage: str, comparison: str) -> None:
        self.comparison = comparison
        self._optuna = import_optuna()
        # Optuna would wrap a database in its cache anyway, once for each study
        self._storage = self._optuna.storages.get_storage(open_storage(storage))
        self._states = self._optuna.trial.TrialState
        self._studies: dict[str, optuna.Study] = {}
        self._signs: dict[tuple[str, int], tuple[Any, float]] = {}
        self._looked = 0.0

    def write_plan(self, text: str) -> None:
        """Keep the plan's text, for workers that have nothing but the storage."""
        self._open_study(PLAN).set_user_attr("plan", text)

    def read_plan(self) -> str | None:
        """Return the plan's text; None if there is none yet."""
        return dict(self._read_stages(with_plan=True)).get(PLAN, {}).get("plan")

    def add_stage(self, stage: str, trials: Sequence[Trial]) -> None:
        """Begin a stage; where it has begun already, enqueue those of its trials that are missing.

        Args:
            stage: Its name.
            trials: All its trials, with names that no other stage uses.
        """
        assert stage != PLAN
        self._open_study(stage).set_user_attr("trials", json.dumps([dataclasses.asdict(trial) for trial in trials]))
        self._enqueue_missing(stage, trials)

    def take(self, stage: str) -> Ticket | None:
        """Take a trial that waits; None if none does."""
        study = self._open_study(stage)
        while study.get_trials(deepcopy=False, states=(self._states.WAITING,)):
            claim = study.ask()
            if "trial" not in claim.user_attrs:  # another worker has taken the last one, and Optuna made one up
                self._fail(study, claim.number)
                return None
            worker = WorkerProcess.current()
            with suppress(self._optuna.exceptions.UpdateFinishedTrialError):
                claim.set_user_attr("worker", dataclasses.asdict(worker))
                if self._is_needed(study, claim):
                    return Ticket(Trial.from_json(claim.user_attrs["trial"]), claim, worker)
                self._fail(study, claim.number)
        return None

    def beat(self, ticket: Ticket) -> None:
        """Give a sign of life of a trial's worker; due every :data:`BEAT_SECONDS`.

        Raises:
            TicketLost: If the trial was given to another worker.
        """
        worker = dataclasses.replace(ticket.worker, beat=time.time())
        self._set_attribute(ticket, "worker", dataclasses.asdict(worker))

    def finish(self, ticket: Ticket, outcome: Outcome) -> None:
        """Record what came of a trial.

        Raises:
            TicketLost: If the trial was given to another worker, whose outcome will count.
        """
        self._set_attribute(ticket, "outcome", outcome.to_json())
        self._close(ticket.claim.study, ticket.claim.number, outcome)

    def give_back(self, ticket: Ticket) -> None:
        """Let another worker run a trial that was not finished."""
        self._fail(ticket.claim.study, ticket.claim.number)
        self._enqueue_missing(ticket.trial.stage, [ticket.trial])

    def recover(self, stage: str) -> None:
        """Give back the trials of dead workers, and enqueue what is missing after a kill.

        Call it every few seconds: a worker on another machine counts as dead when its last sign of life has not changed
        for :data:`STALE_SECONDS` by this process's clock.
        """
        study = self._open_study(stage)
        now = time.monotonic()
        if now - self._looked > BEAT_SECONDS:
            self._signs.clear()  # after an outage of the storage, nobody had a chance to give a sign of life
        self._looked = now
        for frozen in study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            if self._is_abandoned(stage, frozen, now):
                outcome = frozen.user_attrs.get("outcome")
                self._close(study, frozen.number, outcome and Outcome.from_json(outcome))
        self._enqueue_missing(stage, self._read_trials(stage))

    def retry_crashed(self, stage: str) -> None:
        """Enqueue once more the trials of a stage that crashed."""
        self._enqueue_missing(stage, self._read_trials(stage), retry_crashed=True)

    def read(self) -> Progress:
        """Return the state of the comparison."""
        progress = Progress()
        for stage, attributes in self._read_stages():
            progress.stages[stage] = _parse_trials(attributes)
            for name, attempts in self._read_attempts(stage).items():
                self._read_state(progress, name, attempts)
        return progress

    def _read_state(self, progress: Progress, name: str, attempts: list[optuna.trial.FrozenTrial]) -> None:
        done = [frozen for frozen in attempts if frozen.state == self._states.COMPLETE]
        running = [frozen for frozen in attempts if frozen.state == self._states.RUNNING]
        waiting = [frozen for frozen in attempts if frozen.state == self._states.WAITING]
        crashed = [frozen for frozen in attempts if self._is_crash(frozen)]
        if done or (crashed and not running and not waiting):
            last = (done or crashed)[-1]
            progress.outcomes[name] = _parse_outcome(last.user_attrs["outcome"])
            assert last.duration is not None
            progress.durations[name] = last.duration.total_seconds()
        elif running and "worker" in running[-1].user_attrs:
            progress.running[name] = WorkerProcess(**running[-1].user_attrs["worker"])

    def _enqueue_missing(self, stage: str, trials: Sequence[Trial], retry_crashed: bool = False) -> None:
        """Enqueue the trials that neither wait nor run nor have an outcome."""
        study = self._open_study(stage)
        attempts = self._read_attempts(stage)
        for trial in trials:
            crashes = 0
            for frozen in attempts.get(trial.name, []):
                if frozen.state in (self._states.COMPLETE, self._states.RUNNING, self._states.WAITING):
                    break
                crashes += self._is_crash(frozen)
            else:
                if not crashes or retry_crashed:
                    attributes = {"trial": trial.to_json(), "name": trial.name, "crashes": crashes}
                    study.enqueue_trial({}, user_attrs=attributes)

    def _is_needed(self, study: optuna.Study, claim: optuna.Trial) -> bool:
        """Return False of a duplicate, as two workers make them that enqueue at once.

        Of two workers that take duplicates at once, at least one sees the other; if both do, neither runs the trial,
        and it is enqueued again.
        """
        crashes = 0
        for frozen in self._read_attempts_of(study).get(claim.user_attrs["name"], []):
            if frozen.number == claim.number:
                continue
            if frozen.state in (self._states.COMPLETE, self._states.RUNNING):
                return False
            crashes += self._is_crash(frozen)
        return crashes <= claim.user_attrs["crashes"]

    def _is_abandoned(self, stage: str, frozen: optuna.trial.FrozenTrial, now: float) -> bool:
        worker = frozen.user_attrs.get("worker")
        if worker is not None and WorkerProcess(**worker).is_dead():
            return True
        sign, since = self._signs.get((stage, frozen.number), (None, now))
        if sign != worker:
            since = now
        self._signs[stage, frozen.number] = (worker, since)
        return now - since > (UNCLAIMED_SECONDS if worker is None else STALE_SECONDS)

    def _is_crash(self, frozen: optuna.trial.FrozenTrial) -> bool:
        return frozen.state == self._states.FAIL and "outcome" in frozen.user_attrs

    def _close(self, study: optuna.Study, number: int, outcome: Outcome | None) -> None:
        """End Optuna's trial: as a failure without an outcome, and after a crash, which may be tried again."""
        if outcome is None or outcome.status == "crashed":
            self._fail(study, number)
        else:  # Optuna wants a value, which nothing reads
            with suppress(self._optuna.exceptions.UpdateFinishedTrialError):
                study.tell(number, outcome.seconds, skip_if_finished=True)

    def _fail(self, study: optuna.Study, number: int) -> None:
        with suppress(self._optuna.exceptions.UpdateFinishedTrialError):
            study.tell(number, state=self._states.FAIL, skip_if_finished=True)

    def _set_attribute(self, ticket: Ticket, key: str, value: Any) -> None:
        try:
            ticket.claim.set_user_attr(key, value)
        except self._optuna.exceptions.UpdateFinishedTrialError as error:
            raise TicketLost(f"Trial {ticket.trial.name} was given to another worker") from error

    def _open_study(self, stage: str) -> optuna.Study:
        if stage not in self._studies:
            self._studies[stage] = self._optuna.create_study(
                storage=self._storage,
                study_name=f"{self.comparison}:{stage}",
                sampler=self._optuna.samplers.RandomSampler(),
                load_if_exists=True,
            )
        return self._studies[stage]

    def _read_stages(self, with_plan: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each stage that has begun with its study's attributes, in order."""
        prefix = f"{self.comparison}:"
        for study in sorted(self._storage.get_all_studies()):
            stage = study.study_name.removeprefix(prefix)
            if study.study_name.startswith(prefix) and (with_plan or "trials" in study.user_attrs):
                yield stage, study.user_attrs

    def _read_trials(self, stage: str) -> list[Trial]:
        return _parse_trials(self._open_study(stage).user_attrs)

    def _read_attempts(self, stage: str) -> dict[str, list[optuna.trial.FrozenTrial]]:
        return self._read_attempts_of(self._open_study(stage))

    def _read_attempts_of(self, study: optuna.Study) -> dict[str, list[optuna.trial.FrozenTrial]]:
        """Return Optuna's trials by the name of ours."""
        attempts: dict[str, list[optuna.trial.FrozenTrial]] = {}
        for frozen in study.get_trials(deepcopy=False):
            if "name" in frozen.user_attrs:
                attempts.setdefault(frozen.user_attrs["name"], []).append(frozen)
        return attempts


def list_comparisons(storage: str) -> list[str]:
    """Return the identifiers of the comparisons that a storage holds, oldest first.

    Raises:
        PlanError: If Optuna or the database's driver is missing, or the file or the database can't be opened.
    """
    studies = sorted(open_storage(storage).get_all_studies())
    ending = f":{PLAN}"
    plans = [study for study in studies if study.study_name.endswith(ending) and "plan" in study.user_attrs]
    return [plan.study_name.removesuffix(ending) for plan in plans]


@cache  # the state is read every few seconds, and a hundred histories are a megabyte
def _parse_outcome(text: str) -> Outcome:
    return Outcome.from_json(text)


def _parse_trials(attributes: dict[str, Any]) -> list[Trial]:
    return [Trial(**fields) for fields in json.loads(attributes.get("trials", "[]"))]
