"""Who does the jobs: this process, several processes of this machine, or a cluster (`ray.py`).

All engines do the same thing. Jobs of one clip, editor and seed go to one worker, which prepares the clip once; a
worker with nothing left takes half of what the richest still has. One job at a time is on its way to a worker, so a
worker that dies takes no more than the job at hand with it: that job is given to another, and one that has killed
`retries + 1` workers is recorded as failed.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

from countervid.benchmark.grid import BenchmarkConfig, Job, make_grid
from countervid.benchmark.job import FAILED, Outcome, Worker, note_failure
from countervid.errors import CountervidError
from countervid.files.stopping import terminating_as_interrupt

Seen = Callable[[Outcome], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a worker is made from: sent to other processes as it is."""

    out: Path
    config: BenchmarkConfig
    metrics: tuple[str, ...]
    device: str = "cpu"
    retries: int = 1
    cache: Path | None = None
    threads: int = 1  # of torch in each worker: more may change the last digits
    cwd: str = field(default_factory=os.getcwd)  # what relative paths are relative to

    def worker(self) -> Worker:
        """A worker of this process."""
        import torch

        torch.set_num_threads(self.threads)
        return Worker(
            self.out, make_grid(self.config), self.metrics, device=self.device, retries=self.retries, cache=self.cache
        )


class WorkersDieError(CountervidError):
    """Whatever is tried, workers die."""


class Died(Exception):
    """A worker is no more."""


class Hand(Protocol):
    """A worker somewhere, given one job at a time."""

    def give(self, job: Job) -> None:
        """Start a job; it is done meanwhile."""
        ...

    def take(self) -> Outcome:
        """What became of the job; call it once the hand was named by `Crew.ready`.

        Raises:
            Died: The worker is no more.
            CountervidError: No job can go on.
        """
        ...

    def stop(self) -> None:
        """End the worker, whatever it does."""
        ...


class Crew(Protocol):
    """Hires workers, and waits for them."""

    def hire(self) -> Hand: ...

    def ready(self, hands: Sequence[Hand]) -> Sequence[Hand]:
        """Those that have something to say; waits for the first."""
        ...


@dataclass
class Desk:
    """A worker's place: who sits there, and what is left to do."""

    hand: Hand
    left: deque[Job] = field(default_factory=deque)
    at_hand: Job | None = None
    done: int = 0  # of what lies here

    def next(self) -> bool:
        """Give the next job, where there is one."""
        self.at_hand = self.left.popleft() if self.left else None
        if self.at_hand is not None:
            self.hand.give(self.at_hand)
        return self.at_hand is not None


def spread(crew: Crew, workers: int, units: Sequence[Sequence[Job]], work: Work, seen: Seen) -> None:
    """Do all jobs with a crew.

    Args:
        units: Jobs that share a preparation, in order.
        seen: Called after each job.

    Raises:
        CountervidError: No job can go on, such as with a full disk; what is finished stays.
    """
    waiting = deque(deque(unit) for unit in units)
    desks = [Desk(crew.hire()) for _ in range(min(workers, sum(map(len, units))))]
    deaths: dict[Job, int] = {}
    barren = 0  # workers that died since the last job was done
    try:
        while True:
            for desk in desks:
                if desk.at_hand is None and not desk.left:
                    desk.left, desk.done = waiting.popleft() if waiting else _half_of(desks), 0
                if desk.at_hand is None:
                    desk.next()
            busy = {id(desk.hand): desk for desk in desks if desk.at_hand is not None}
            if not busy:
                return
            for hand in crew.ready([desk.hand for desk in busy.values()]):
                desk = busy[id(hand)]
                job, desk.at_hand = desk.at_hand, None
                assert job is not None
                try:
                    seen(hand.take())
                    desk.done, barren = desk.done + 1, 0
                except Died as error:
                    hand.stop()
                    barren += 1
                    if barren > len(desks) + 2 * (work.retries + 1):
                        raise WorkersDieError(
                            f"{barren} workers died one after another ({error}) and no job was done meanwhile. Use "
                            "fewer --workers if memory is short, or --workers 1 to see what is wrong."
                        ) from error
                    deaths[job] = deaths.get(job, 0) + 1
                    if deaths[job] > work.retries:
                        line = f"the worker died {deaths[job]} times doing it ({error})"
                        note_failure(work.out, job, line)
                        seen(Outcome(job, FAILED, line))
                    else:
                        desk.left.appendleft(job)
                    desk.hand = crew.hire()
    finally:
        for desk in desks:
            desk.hand.stop()


def _half_of(desks: Sequence[Desk]) -> deque[Job]:
    """Half of the jobs of the richest desk, the later ones, once it has prepared its clip."""
    richest = max(desks, key=lambda desk: len(desk.left) if desk.done else 0)
    if richest.done == 0 or len(richest.left) < 2:
        return deque()
    taken = [richest.left.pop() for _ in range(len(richest.left) // 2)]
    return deque(reversed(taken))


def in_process(units: Sequence[Sequence[Job]], work: Work, seen: Seen) -> None:
    """Do all jobs here, one after another."""
    import torch

    threads = torch.get_num_threads()
    try:
        worker = work.worker()
        for unit in units:
            for job in unit:
                seen(worker.do(job))
    finally:
        torch.set_num_threads(threads)


# --- processes of this machine ---------------------------------------------------------------------------------------


class Process:
    """A process with a pipe to it."""

    def __init__(self, work: Work) -> None:
        context = get_context("spawn")  # a forked child would inherit locks of torch's and the renderer's threads
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _quiet_threads(work.threads):
            self._process.start()
        theirs.close()  # so that the pipe ends with the process

    def give(self, job: Job) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # `take` will say so
            self.pipe.send(job)

    def take(self) -> Outcome:
        try:
            said = self.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(10)
            code = self._process.exitcode
            raise Died(f"signal {-code}" if code is not None and code < 0 else f"exit code {code}") from error
        if isinstance(said, Outcome):
            return said
        raise said

    def stop(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join(10)


class Local:
    """Processes of this machine; on several GPUs, by turns."""

    def __init__(self, work: Work) -> None:
        self.work, self.hired = work, 0

    def hire(self) -> Process:
        device = placed(self.work.device, self.hired)
        self.hired += 1
        return Process(replace(self.work, device=device))

    def ready(self, hands: Sequence[Hand]) -> list[Hand]:
        by_pipe: dict[Any, Hand] = {hand.pipe: hand for hand in hands if isinstance(hand, Process)}
        return [by_pipe[pipe] for pipe in connection.wait(list(by_pipe))]


def placed(device: str, number: int) -> str:
    """The device of a worker: `cuda` is one of the GPUs there are."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{number % max(torch.cuda.device_count(), 1)}"


@contextmanager
def _quiet_threads(threads: int) -> Iterator[None]:
    """One thread a worker, from its first import on: libraries read these when they are loaded."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _serve(pipe: Any, work: Work) -> None:
    """What a worker's process does: jobs in, outcomes out, until its parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with terminating_as_interrupt():
            worker = work.worker()
            while True:
                pipe.send(worker.do(pipe.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return  # nobody is there any more, or nobody wants it any more
    except CountervidError as error:
        pipe.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
