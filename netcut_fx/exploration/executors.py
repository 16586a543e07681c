"""Where the steps of an exploration run: here, in processes of their own, or on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from netcut_fx.errors import BackendError, SpecError
from netcut_fx.exploration.tasks import Answer, Task

#: Hears of each finished task.
Done = Callable[[Task, Answer], None]

#: A task whose worker dies so often is given up: it is the task that kills it.
ATTEMPTS = 3


class Executor(Protocol):
    """Runs tasks. Each task is done exactly once from the caller's view, in any order."""

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        """Run all `tasks`, telling `done` of each as it ends. A lost worker's task is given to another one."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class Inline:
    """One task after the other in this process: nothing is started, and a crash is a crash of all."""

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        """See `Executor`."""
        from netcut_fx.exploration.steps import perform

        for task in tasks:
            done(task, perform(task))

    def close(self) -> None:
        """Nothing to end."""


class RayCluster:
    """Tasks spread over the machines of a Ray cluster; all of them must see the same files under the same paths.

    Parameters
    ----------
    address : str
        Of the cluster, as in ``ray://host:10001`` or ``auto``; ``local`` starts one on this machine.
    processes : int, optional
        Of a local cluster.

    Raises
    ------
    SpecError
        If ray is not installed.
    BackendError
        If there is no cluster at the address.
    """

    def __init__(self, address: str, processes: int | None = None) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise SpecError("--ray needs the package ray; pip install 'netcut-fx[ray]'") from error
        self._ray = cast(Any, ray)
        more = {"num_cpus": processes, "include_dashboard": False} if address == "local" else {}
        try:
            self._ray.init(address=address, log_to_driver=False, **more)
        # What a wrong address raises depends on how it is wrong: ConnectionError, ValueError, RuntimeError.
        except Exception as error:
            raise BackendError(
                f"there is no Ray cluster at '{address}' ({' '.join(str(error).split())[:200]}); start one with "
                "'ray start --head', or leave --ray out"
            ) from error
        remote = self._ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)
        self._perform = remote(_perform_alone)

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        """See `Executor`."""
        waiting = {self._perform.remote(task): task for task in tasks}
        while waiting:
            (ready, *_), _ = self._ray.wait(list(waiting), num_returns=1)
            task = waiting.pop(ready)
            try:
                answer = cast(Answer, self._ray.get(ready))
            except self._ray.exceptions.RayError as error:
                answer = Answer(None, f"its worker was lost {ATTEMPTS} times: {' '.join(str(error).split())[:200]}")
            done(task, answer)

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


def _perform_alone(task: Task) -> Answer:
    """Do `task` with one thread, in a process that other tasks share the machine with."""
    import torch

    from netcut_fx.exploration.steps import perform

    torch.set_num_threads(1)
    return perform(task)
