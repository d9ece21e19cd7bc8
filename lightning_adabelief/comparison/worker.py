"""The worker: takes trials from the queue, runs each in a process of its own, and begins the next stage."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from subprocess import Popen
from typing import Any

from lightning_adabelief.comparison.progress import Progress
from lightning_adabelief.comparison.queue import BEAT_SECONDS, Queue, Ticket, TicketLost
from lightning_adabelief.comparison.storage import outage_errors
from lightning_adabelief.comparison.trial import Outcome, Trial

NextStage = Callable[[Mapping[str, Sequence[Trial]], Mapping[str, Outcome]], "tuple[str, Sequence[Trial]] | None"]
"""Given all stages and outcomes so far, returns the next stage's name and trials; None if the comparison is done.
Every worker must come to the same answer."""

Run = Callable[[Trial, Callable[[Popen[Any]], None]], Outcome]
"""Runs a trial; calls its second argument with the trial's process as soon as that has started."""

POLL_SECONDS = 2
"""The time from one look at the queue to the next."""

OUTAGE_SECONDS = 600
"""The time for which the storage may be out of reach before a worker gives up."""

KILLS = (2, 9, 15)
"""The numbers of SIGINT, SIGKILL and SIGTERM; Windows does not know the second one's name."""

KILLED = {-number for number in KILLS} | {128 + number for number in KILLS}
"""The return codes of a process that was ended by a person or by the system, as when memory runs out."""

MAX_KILLS = 3
"""The number of times that a trial's process is killed before the trial counts as crashed."""

MAX_FIRST_CRASHES = 3
"""The number of trials that crash, none having finished, before a worker gives up."""


class TrialsCrashed(RuntimeError):
    """The comparison can't go on: trials ended by an error, which is no result of theirs."""


def work(
    queue: Queue,
    next_stage: NextStage,
    run: Run,
    jobs: int,
    on_change: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Run trials until the comparison is done.

    Trials that crashed before this call are tried again. After a stage in which one crashed, no other begins: it would
    rest on fewer trials of one optimizer than of another.

    Args:
        queue: Shared with other workers.
        next_stage: See :data:`NextStage`.
        run: See :data:`Run`. Called in threads.
        jobs: The number of trials that run at once.
        on_change: Called with the state of the comparison every :data:`POLL_SECONDS` and at each trial's end.

    Returns:
        The state of the comparison at its end.

    Raises:
        TrialsCrashed: If the first trials all crashed, or some of a stage.
        KeyboardInterrupt: Or what else a signal's handler raises; the trials that run are killed and given back.
    """
    for stage in list(queue.read().stages)[-1:]:
        queue.retry_crashed(stage)
    worker = _Worker(queue, next_stage, run, jobs)
    try:
        return worker.run_all(on_change)
    finally:
        worker.stop()


class _Job:
    """A trial that runs in a thread, which waits for the trial's process."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.process: Popen[Any] | None = None
        self.is_stopped = False
        self.future: Future[Outcome] = Future()

    def run(self, run: Run) -> Outcome:
        """Run the trial, and again if its process was killed."""
        for _ in range(MAX_KILLS):
            try:
                outcome = run(self.ticket.trial, self._keep)
            except Exception:  # such as a full disk, on which the trial's config is written
                return Outcome("crashed", error=traceback.format_exc())
            was_killed = self.process is not None and self.process.returncode in KILLED
            if outcome.status != "crashed" or self.is_stopped or not was_killed:
                break
        return outcome

    def stop(self) -> None:
        """Kill the trial's process, now or as soon as it starts."""
        self.is_stopped = True
        if self.process is not None:
            self.process.kill()

    def has_result(self) -> bool:
        """Return True if the trial has ended, and not by a crash."""
        return self.future.done() and not self.future.cancelled() and self.future.result().status != "crashed"

    def _keep(self, process: Popen[Any]) -> None:
        self.process = process
        if self.is_stopped:
            process.kill()


class _Worker:
    """A worker's jobs. The main thread alone, which takes the signals, speaks to the queue."""

    def __init__(self, queue: Queue, next_stage: NextStage, run: Run, jobs: int) -> None:
        self._queue = queue
        self._next_stage = next_stage
        self._run = run
        self._executor = ThreadPoolExecutor(jobs)
        self._max_jobs = jobs
        self._jobs: list[_Job] = []
        self._last_beat = time.monotonic()

    def run_all(self, on_change: Callable[[Progress], None]) -> Progress:
        """Run trials until the comparison is done."""
        last_contact = time.monotonic()
        while True:
            try:
                progress, is_done = self._go_on()
                last_contact = time.monotonic()
            except outage_errors():
                if time.monotonic() - last_contact > OUTAGE_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            on_change(progress)
            if is_done:
                return progress
            if self._jobs:
                wait([job.future for job in self._jobs], POLL_SECONDS, FIRST_COMPLETED)
            else:
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Kill the trials' processes, and give the trials back."""
        for job in self._jobs:
            job.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)
        with suppress(*outage_errors()):  # then others will find that this worker is dead
            for job in self._jobs:
                if job.has_result():
                    self._queue.finish(job.ticket, job.future.result())
                else:
                    self._queue.give_back(job.ticket)

    def _go_on(self) -> tuple[Progress, bool]:
        """Do what is due now; return the state of the comparison, and True at its end."""
        self._record_outcomes()
        self._beat()
        progress = self._queue.read()
        _raise_if_all_crash(progress)
        stage = list(progress.stages)[-1] if progress.stages else None
        if stage is None or _is_complete(progress):
            _raise_if_some_crashed(progress)
            following = self._next_stage(progress.stages, progress.outcomes)
            if following is None:
                return progress, True
            self._queue.add_stage(*following)
            stage = following[0]
        self._take_trials(stage)
        return self._queue.read(), False

    def _record_outcomes(self) -> None:
        for job in [job for job in self._jobs if job.future.done()]:
            with suppress(TicketLost):
                self._queue.finish(job.ticket, job.future.result())
            self._jobs.remove(job)

    def _beat(self) -> None:
        if time.monotonic() - self._last_beat < BEAT_SECONDS:
            return
        for job in self._jobs:
            try:
                self._queue.beat(job.ticket)
            except TicketLost:
                job.stop()
        self._last_beat = time.monotonic()

    def _take_trials(self, stage: str) -> None:
        while len(self._jobs) < self._max_jobs:
            ticket = self._queue.take(stage)
            if ticket is None:
                self._queue.recover(stage)
                return
            job = _Job(ticket)
            self._jobs.append(job)
            job.future = self._executor.submit(job.run, self._run)


def _is_complete(progress: Progress) -> bool:
    trials = list(progress.stages.values())[-1]
    return all(trial.name in progress.outcomes for trial in trials)


def _raise_if_all_crash(progress: Progress) -> None:
    if len(progress.outcomes) >= MAX_FIRST_CRASHES:
        crashed = _find_crashed(progress)
        if len(crashed) == len(progress.outcomes):
            raise TrialsCrashed(f"All of the first {len(crashed)} trials crashed. {_quote_error(progress, crashed[0])}")


def _raise_if_some_crashed(progress: Progress) -> None:
    crashed = _find_crashed(progress)
    if crashed:
        names = ", ".join(crashed[:3]) + (" ..." if len(crashed) > 3 else "")
        raise TrialsCrashed(
            f"{len(crashed)} of {len(progress.outcomes)} trials crashed: {names}. The same command tries them again. "
            + _quote_error(progress, crashed[0])
        )


def _find_crashed(progress: Progress) -> list[str]:
    return [name for name, outcome in progress.outcomes.items() if outcome.status == "crashed"]


def _quote_error(progress: Progress, name: str) -> str:
    return f"The last lines of {name}:\n{progress.outcomes[name].error}"
