"""A sweep on a Ray cluster, or by Ray on this machine: each job is a Ray task, which starts the same process as the local
launcher.

Ray chooses the node, queues jobs without room, and reports a lost worker or node; the job is then started again and continues
from its checkpoint. The pool handles order, dependencies and results, so the launcher must stay alive.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import ray
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig
from ray.exceptions import RayError, TaskCancelledError

from shapelaw.devices import cores
from shapelaw.errors import UserError
from shapelaw.run_state import await_lock
from shapelaw.sweep.compose import SweepConfigs
from shapelaw.sweep.job_process import JobProcess, Order, failure
from shapelaw.sweep.local import POLL_SECONDS, STOP_SECONDS, Adjusted, carried_out, job_config, on_gpus, with_values
from shapelaw.sweep.pool import Pool
from shapelaw.sweep.resources import Resources, asked_of_ray, has_gpus, resources_of, said_of_ray, spread_over
from shapelaw.sweep.settings import RaySettings
from shapelaw.sweep.task import ChecksMachine, Job, Task
from shapelaw.sweep.view import View

HERE = "local"
"""Address of a Ray cluster that is started on this machine for one sweep."""
AUTO = "auto"
"""Address of the cluster that already runs on this machine."""
CONNECT_SECONDS = 10.0
ADVICE = "; for a cluster that asks for a token, set RAY_AUTH_MODE=token in the environment"
STORE_BYTES = 80 * 2**20
"""Size of Ray's object store, which passes configurations and results; about the smallest that it accepts."""
OF_THE_WORKER = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Variables that Ray sets from the resources of a task: the worker's values count, not the launcher's."""


def launch(context: HydraContext, task: Task, runs: SweepConfigs, site: RaySettings) -> list[JobReturn]:
    """Check every run, then let Ray carry out the unfinished ones; returns one result per run, in order.

    Raises:
        UserError: before the first job, for the first error.
        SweepFailed: after the last job, if some failed.
    """
    address = site.address or os.environ.get("RAY_ADDRESS") or HERE
    configs = Adjusted(runs, lambda config: on_gpus(config, has_gpus(config, site)))
    if address == HERE and isinstance(task, ChecksMachine):
        task.check_machine(configs)
    jobs = task.plan(configs)
    resources = [resources_of(job, site) for job in jobs]

    def config_of(index: int, shared: Mapping[str, Any]) -> DictConfig:
        config = job_config(runs, jobs, index, shared)
        values = {**on_gpus(config, bool(resources[index].gpus_per_node)), **spread_over(config, resources[index])}
        return with_values(config, values)

    def pool_of(shared: Mapping[str, Any]) -> RayPool:
        return RayPool(context, task, lambda index: config_of(index, shared), jobs, resources, site)

    return carried_out(task, configs, jobs, pool_of, _cluster(address, jobs, resources, site))


@contextlib.contextmanager
def _cluster(address: str, jobs: Sequence[Job], resources: Sequence[Resources], site: RaySettings) -> Iterator[None]:
    """Connect to the cluster, or start one on this machine.

    Raises:
        UserError: if it cannot be reached, or has no room for a job.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)  # it prints warnings about its setup
    with _started() if address == HERE else _connected(address):
        if not site.wait_for_nodes:
            _check_room(
                {job.label: asked_of_ray(each, site) for job, each in zip(jobs, resources, strict=True) if not job.done}
            )
        yield


@contextlib.contextmanager
def _started() -> Iterator[None]:
    """Start Ray on this machine, with its files in a folder that is removed at the end."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    short = os.environ.get("RAY_TMPDIR", "/tmp")  # the paths of its sockets must not be long
    with tempfile.TemporaryDirectory(prefix="shapelaw-ray-", dir=short, ignore_cleanup_errors=True) as folder:
        options = {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": STORE_BYTES}
        with _initialised(HERE, **options, _temp_dir=folder):
            yield


def _connected(address: str) -> AbstractContextManager[None]:
    """Connect to a running cluster.

    Raises:
        UserError: if nothing answers at its address; Ray itself would try for minutes.
    """
    there = _found_here() if address == AUTO else address
    host, _, port = there.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        place = f"at {there}, where this machine's last cluster was" if address == AUTO else "there"
        raise UserError(
            f"hydra.launcher.address={address}: nothing answers {place} ({error}); give HOST:PORT of the cluster's head, "
            f"on a machine that is one of its nodes, or {AUTO}, or {HERE}"
        ) from None
    return _initialised(there)


def _found_here() -> str:
    """The address, found by Ray, of the cluster that runs on this machine.

    Raises:
        UserError: if there is none.
    """
    from ray._private.services import canonicalize_bootstrap_address  # no other way without connecting

    try:
        return str(canonicalize_bootstrap_address(AUTO))
    except ConnectionError:
        raise UserError(
            f"hydra.launcher.address={AUTO}: Ray is not running on this machine; start it with `ray start --head`, or "
            f"give HOST:PORT of a cluster's head, or {HERE}"
        ) from None


@contextlib.contextmanager
def _initialised(address: str, **options: Any) -> Iterator[None]:
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, **options)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"hydra.launcher.address={address}: Ray does not start there: {said}{ADVICE}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_room(asked: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse a job that no node can ever hold, which Ray would let wait forever.

    Raises:
        UserError: naming the first one, and the resources of the nodes.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for label, needs in asked.items():
        if not any(all(node.get(name, 0.0) >= amount for name, amount in needs.items()) for node in nodes):
            most = {name: max(node.get(name, 0.0) for node in nodes) for name in needs}
            raise UserError(
                f"{label}: asks Ray for {said_of_ray(needs)}, and no node has that (the most: {said_of_ray(most)}); "
                "give smaller resources, start such a node, or, if the cluster grows by itself, give "
                "hydra.launcher.wait_for_nodes=true"
            )


class RayPool(Pool[Any]):
    """Runs jobs as Ray tasks. For each it holds the stream of its task's messages: the node where it runs, then its result."""

    def __init__(
        self,
        context: HydraContext,
        task: Task,
        config_of: Callable[[int], DictConfig],
        jobs: Sequence[Job],
        resources: Sequence[Resources],
        site: RaySettings,
    ) -> None:
        """As for `Pool`, with the resources of each job. All jobs that can start are submitted at once; Ray queues them."""
        super().__init__(context, task, config_of, jobs, len(jobs), site.stop_on_failure)
        self.resources, self.site = resources, site
        self.attempts: Counter[int] = Counter()
        self.stopping = False
        self.view: View | None = None

    def run(self, view: View) -> list[JobReturn]:
        self.view = view
        return super().run(view)

    def _start(self, index: int) -> None:
        self.attempts[index] += 1
        asked = asked_of_ray(self.resources[index], self.site)
        named = {
            option: asked.pop(name, 0)
            for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory"))
        }
        options = {**named, "resources": asked, "name": self.jobs[index].label, "max_retries": 0}
        order = self._order(index, self.site.environment)
        task = ray.remote(_carry_out).options(num_returns="streaming", **options)
        self.running[index] = task.remote(order, self.attempts[index] > 1)

    def _handed_over(self, index: int, view: View) -> None:
        """Show nothing: the job is queued until its task reports where it runs."""

    def _finished(self) -> list[int]:
        if not self.running:
            return []
        places = {id(stream): index for index, stream in self.running.items()}
        streams = list(self.running.values())
        ray.wait(streams, num_returns=1, timeout=POLL_SECONDS)
        ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        for stream in ready:
            self._take(places[id(stream)], stream)
        ended = [index for index in places.values() if index in self.results]
        for index in ended:
            del self.running[index]
        return ended

    def _take(self, index: int, stream: Any) -> None:
        """Take the next message of a job's task."""
        try:
            word = ray.get(next(stream))
        except (TaskCancelledError, StopIteration):
            self.results[index] = failure("interrupted")
        except RayError as error:
            self._lost(index, str(error).splitlines()[0])
        else:
            if isinstance(word, JobReturn):
                self.results[index] = word
            elif self.view:
                self.view.started(self.jobs[index])

    def _lost(self, index: int, why: str) -> None:
        """Handle a lost worker or node: start the job again, if allowed."""
        attempt, most = self.attempts[index], self.site.max_attempts
        if self.stopping or attempt >= most:
            self.results[index] = failure(
                f"Ray lost it {attempt} times: {why}" if attempt > 1 else f"Ray lost it: {why}"
            )
            return
        if self.view:
            self.view.lost(self.jobs[index], f"Ray lost it ({why}); started again, {attempt + 1} of {most}")
        self._start(index)

    def stop(self) -> None:
        self.stopping = True
        for stream in self.running.values():
            ray.cancel(stream)
        deadline = time.monotonic() + 2 * STOP_SECONDS  # its task itself waits half of that for the process
        while self.running and time.monotonic() < deadline:
            self._finished()
        for stream in self.running.values():
            ray.cancel(stream, force=True)
        self.running.clear()


def _carry_out(order: Order, again: bool) -> Iterator[str | JobReturn]:
    """A Ray task: it yields the node's name once it runs, then the job's result. If cancelled, it lets its job checkpoint."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # Ray cancels by SIGINT, which is ignored if Ray was started with `&`
    yield socket.gethostname()
    if again:
        await_lock(order.folder)
    process = JobProcess(_here(order))
    try:
        while not process.ended:
            process.connection.poll(POLL_SECONDS)
    except KeyboardInterrupt:
        process.ask()
        process.end(STOP_SECONDS)
    yield process.result()


def _here(order: Order) -> Order:
    """An order for this node, with the launcher's environment but the devices that Ray gives this task."""
    theirs = {name: value for name, value in order.environment.items() if name not in OF_THE_WORKER}
    ours = {name: os.environ[name] for name in OF_THE_WORKER if name in os.environ}
    return replace(
        order, environment=theirs | ours, preload=("ray", *order.preload)
    )  # the main module of workers imports it
