"""Worker processes on this machine. A worker that dies loses its task to another one; finished work is in files."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from netcut_fx.exploration.executors import ATTEMPTS, Done
from netcut_fx.exploration.tasks import Answer, Task


@dataclass
class _Worker:
    """A process, our end of its pipe, what it is doing and what it did last."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    last: Task | None = None


class Processes:
    """An `Executor` with a fixed number of worker processes, started as they are needed.

    Parameters
    ----------
    jobs : int
        How many. Each trains with one thread.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._workers: list[_Worker] = []
        # A forked process would share this one's threads and locks as they happen to be.
        self._context = multiprocessing.get_context("spawn")

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        """See `Executor`."""
        waiting, lost = deque(tasks), Counter[Task]()
        while waiting or self._busy():
            while waiting and len(self._busy()) < self.jobs:
                self._give(waiting.popleft())
            for worker in self._finished():
                task = worker.task
                assert task is not None
                worker.task = None
                answer = self._answer_of(worker)
                if answer is not None:
                    done(task, answer)
                    continue
                lost[task] += 1
                if lost[task] < ATTEMPTS:
                    waiting.appendleft(task)
                else:
                    how = f"exit status {worker.process.exitcode}"
                    done(task, Answer(None, f"its process died {ATTEMPTS} times ({how}); it may need more memory"))

    def close(self) -> None:
        """End the workers, in the middle of a task if need be."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.task is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def _busy(self) -> list[_Worker]:
        return [w for w in self._workers if w.task is not None]

    def _give(self, task: Task) -> None:
        idle = [w for w in self._workers if w.task is None]
        # The network that a worker did last is still loaded there.
        known = [w for w in idle if w.last is not None and w.last.network == task.network]
        worker = (known or idle)[0] if idle else self._start()
        worker.task = worker.last = task
        # Where it died while idle, `_finished` will find its pipe closed, and the task goes to another.
        with contextlib.suppress(OSError):
            worker.pipe.send(task)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _finished(self) -> list[_Worker]:
        """Workers that answered or died."""
        by_pipe = {w.pipe: w for w in self._busy()}
        return [by_pipe[cast(Connection, pipe)] for pipe in wait(list(by_pipe))]

    def _answer_of(self, worker: _Worker) -> Answer | None:
        """What it says; None if it died, and then it is gone."""
        try:
            return cast(Answer, worker.pipe.recv())
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.pipe.close()
            worker.process.join()
            return None


def _serve(pipe: Any) -> None:
    """Answer tasks until the pipe closes; end at once where the parent ended, however it did."""
    import torch

    from netcut_fx.exploration.steps import perform

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send(perform(task))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # Everything finished lies in files, each written in one step: there is nothing to tidy up.
        os._exit(1)
