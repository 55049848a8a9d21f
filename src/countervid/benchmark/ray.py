"""The benchmark on a Ray cluster: one actor a worker, its models resident; a worker that dies is replaced.

Every machine must see the benchmark's folder under the same path, and have the same version of this package. Jobs are
given and taken one at a time, so results are as on one machine.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from countervid.benchmark.engine import Died, Hand, Work
from countervid.benchmark.grid import Job
from countervid.benchmark.job import Outcome
from countervid.errors import ConfigError, CountervidError, MissingExtraError

STORE_BYTES = 100 << 20  # of Ray's object store, the least it takes: jobs and outcomes are small


class Actor:
    """What runs on the cluster."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._worker: Any = None

    def do(self, job: Job) -> Outcome | CountervidError:
        """Do a job. What no job can go on after is returned, not raised: it is no fault of the cluster's."""
        try:
            if self._worker is None:
                os.chdir(self._work.cwd)
                self._worker = self._work.worker()
            outcome: Outcome = self._worker.do(job)
            return outcome
        except CountervidError as error:
            return error


class RayHand:
    """An actor, and what it was asked last."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor, self.answer = ray, actor, None

    def give(self, job: Job) -> None:
        self.answer = self._actor.do.remote(job)

    def take(self) -> Outcome:
        try:
            said = self._ray.get(self.answer)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.WorkerCrashedError) as error:
            raise Died(str(error).strip().splitlines()[0]) from error
        if isinstance(said, Outcome):
            return said
        raise said

    def stop(self) -> None:
        self._ray.kill(self._actor, no_restart=True)


class Cluster:
    """Actors on a cluster. A GPU is shared by as many workers as come to one.

    Args:
        ray: The module, connected.
        work: What they do.
        workers: How many there will be.

    Raises:
        ConfigError: The cluster is too small, or has no GPU where one is asked for.
    """

    def __init__(self, ray: Any, work: Work, workers: int) -> None:
        self._ray = ray
        there = ray.cluster_resources()
        gpus, cpus = float(there.get("GPU", 0)), int(there.get("CPU", 0))
        if workers > cpus:
            raise ConfigError(
                f"The cluster has {cpus} processors: --workers {workers} are too many. Use --workers {cpus}."
            )
        on_gpu = gpus > 0 and work.device != "cpu"
        if work.device.startswith("cuda") and not on_gpu:
            raise ConfigError("The cluster has no GPU. Use --device cpu, or add machines that have one.")
        share = min(1.0, math.floor(1000 * gpus / workers) / 1000) if on_gpu else 0.0  # Ray counts in thousandths
        self._work = replace(work, device="cuda:0" if on_gpu else "cpu")  # an actor sees its own GPU alone
        self._kind = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0)(Actor)

    def hire(self) -> RayHand:
        return RayHand(self._ray, self._kind.remote(self._work))

    def ready(self, hands: Sequence[Hand]) -> list[Hand]:
        by_answer: dict[Any, Hand] = {hand.answer: hand for hand in hands if isinstance(hand, RayHand)}
        done, _ = self._ray.wait(list(by_answer), num_returns=1)
        return [by_answer[answer] for answer in done]


@contextmanager
def cluster(work: Work, workers: int, address: str | None = None) -> Iterator[Cluster]:
    """A cluster to work on: the one at an address, or one of this machine's processors that lasts as long as the block.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: Nobody answers at the address, or the cluster is too small.
    """
    # Read when Ray is imported: nothing is sent home, and actors start as this process did.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError(
            'Running on Ray needs an extra. Install it with `pip install "countervid[ray]"`.'
        ) from None
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    variables = dict.fromkeys(names, str(work.threads))
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    folder, on_termination = None, signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            folder = tempfile.mkdtemp(prefix="cv-ray-", dir="/tmp")  # Ray's sockets need a short path
            variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
            ray.init(
                num_cpus=workers, include_dashboard=False, object_store_memory=STORE_BYTES, _temp_dir=folder,
                _node_ip_address="127.0.0.1", runtime_env={"env_vars": variables}, **common,
            )  # fmt: skip
        else:
            try:
                ray.init(address=address, runtime_env={"env_vars": variables}, **common)
            except (ConnectionError, ValueError) as error:
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(
                    f"No Ray cluster answers at `{address}` ({reason}). Start one: `ray start --head`."
                ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_termination)  # Ray puts its own in its place, which exits at once
        yield Cluster(ray, work, workers)
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
