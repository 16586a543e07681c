"""The process that searches: builds and times candidates of one network's kernels, one after the other.

It is a process of its own because a bad schedule can crash the compiler or the kernel: the trial is lost, not the run.
Within it candidates are built and timed in place, which is what makes a trial cost a fraction of a second:
MetaSchedule's own builder starts fresh Python workers every round.

Reads one JSON object from standard input, writes one JSON event per line to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netcut_fx.backends.tvm.records import FailedAttempts, open_records
from netcut_fx.backends.tvm.schedules.candidates import Candidate, candidates, scheduled
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm, limit_threads

#: Below this many trials a random sample of the design space beats an evolutionary search: nothing is learnt in time.
_EVOLUTION_FROM = 24
#: Kernels without a reduction worth tiling: their space is small.
_SMALL_SPACE_TRIALS = 6
_ROUND = 8
#: Largest difference of a scheduled kernel from the unscheduled one, relative to its largest output.
_TOLERANCE = 1e-4


def main() -> None:
    """Entry point: ``python -m netcut_fx.backends.tvm.tune_worker``."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the compiler prints goes to standard error, events stay clean
    config = json.load(sys.stdin)

    def emit(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    tvm = import_tvm()
    from tvm.s_tir import meta_schedule as ms

    limit_threads(config["threads"])
    machine = Machine(**config["machine"])
    module = tvm.ir.load_json(Path(config["module"]).read_text(encoding="utf-8"))
    target = tvm.target.Target(config["target"])
    tasks = ms.relax_integration.extract_tasks(module, target)
    tasks = sorted(tasks, key=lambda task: str(task.task_name))
    database = open_records(Path(config["records"]))
    cost_model = ms.cost_model.XGBModel(num_tuning_cores=1)
    emit(event="start", kernels=len(tasks))
    attempts = FailedAttempts(Path(config["records"]))
    for index, task in enumerate(tasks):
        name = str(task.task_name)
        workload = database.commit_workload(task.dispatched[0])
        records = database.get_top_k(workload, 1 << 30)
        own = candidates(task.dispatched[0]["main"], machine)
        if own:
            wanted = min(len(own), config["trials"])
        elif _has_reduction(task.dispatched[0]):
            wanted = config["trials"]
        else:
            wanted = min(_SMALL_SPACE_TRIALS, config["trials"])
        have = len(records) + attempts.of(task.dispatched[0])
        if have >= wanted or name in config["skip"]:
            emit(event="done", kernel=name, index=index, trials=0, failed=0)
            continue
        emit(event="search", kernel=name, index=index)
        search = _Search(task, target, database, workload, cost_model, config["threads"], config["seed"] + index)
        if records:
            search.best_s = min(float(s) for s in records[0].run_secs)
        tried, failed = search.run_own(own[have:wanted], emit) if own else search.run(wanted - have, emit)
        attempts.add(task.dispatched[0], failed)
        emit(event="done", kernel=name, index=index, trials=tried, failed=failed)
    emit(event="end")


def _has_reduction(module: Any) -> bool:
    """Whether some block of the kernel reduces: convolutions, matrix products, pooling."""
    return "T.init()" in module.script() or ".init()" in module.script()


class _Search:
    def __init__(
        self, task: Any, target: Any, database: Any, workload: Any, cost_model: Any, threads: int, seed: int
    ) -> None:
        self.task = task
        self.target = target
        self.database = database
        self.workload = workload
        self.cost_model = cost_model
        self.threads = threads
        self.seed = seed
        self.best_s = float("inf")
        self.reference: list[Any] | None = None

    def run_own(self, own: tuple[Candidate, ...], emit: Any) -> tuple[int, int]:
        """Measure our own schedules in their order; says how many, and how many of them failed."""
        from tvm.s_tir import meta_schedule as ms

        failed = 0
        module = self.task.dispatched[0]
        infos = ms.arg_info.ArgInfo.from_prim_func(module["main"])
        for candidate in own:
            result = self._try(lambda c=candidate: ms.MeasureCandidate(scheduled(module, c), infos))
            failed += result.run_secs is None
            emit(event="trial", kernel=str(self.task.task_name))
        return len(own), failed

    def run(self, trials: int, emit: Any) -> tuple[int, int]:
        """Search MetaSchedule's own space."""
        from tvm.s_tir import meta_schedule as ms

        strategy = (
            ms.search_strategy.EvolutionarySearch(population_size=64, genetic_num_iters=3, init_min_unmeasured=16)
            if trials >= _EVOLUTION_FROM
            else ms.search_strategy.ReplayTrace()
        )
        context = ms.TuneContext(
            mod=self.task.dispatched[0],
            target=self.target,
            space_generator=ms.space_generator.PostOrderApply(sch_rules=schedule_rules(self.threads)),
            search_strategy=strategy,
            task_name=str(self.task.task_name),
            rand_state=self.seed,
            num_threads=1,
        )
        context.pre_tuning(
            max_trials=trials,
            num_trials_per_iter=_ROUND,
            design_spaces=context.space_generator.generate_design_space(context.mod),
            database=self.database,
            cost_model=self.cost_model,
        )
        tried = failed = 0
        while tried < trials:
            candidates = context.generate_measure_candidates()
            if candidates is None:
                break
            results: list[Any] = []
            for candidate in candidates:
                result = self._try(lambda c=candidate: c)
                results.append(result)
                tried += 1
                failed += result.run_secs is None
                emit(event="trial", kernel=str(self.task.task_name))
            if trials >= _EVOLUTION_FROM:
                self.cost_model.update(context, candidates, results)
            context.search_strategy.notify_runner_results(candidates, results)
        context.post_tuning()
        return tried, failed

    def _try(self, make: Callable[[], Any]) -> Any:
        """Build and time one candidate and write its record at once."""
        from tvm.s_tir import meta_schedule as ms

        try:
            candidate = make()
            seconds = self._time(candidate)
        except Exception as failure:  # any failure of a candidate only loses the trial
            return ms.runner.RunnerResult(None, " ".join(str(failure).split())[-300:])
        # What failed is no record: the best record of a workload is applied without asking again. What is slower than
        # the best so far is recorded unchecked, as it is never applied.
        self.database.commit_tuning_record(
            ms.database.TuningRecord(candidate.sch.trace, self.workload, seconds, self.target, candidate.args_info)
        )
        return ms.runner.RunnerResult(seconds, None)

    def _time(self, candidate: Any) -> list[float]:
        tvm = import_tvm()
        module = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(candidate.sch.mod)
        library = tvm.tirx.build(module, target=self.target)
        arguments = _tensors(random_arguments(candidate.args_info))

        def rounds(number: int, repeat: int) -> list[float]:
            evaluator = library.time_evaluator("main", tvm.cpu(), number=number, repeat=repeat)
            return [float(s) for s in evaluator(*arguments).results]

        first = min(rounds(1, 2))
        if first > 4 * self.best_s:
            return [first]
        number = max(1, min(500, int(0.004 / max(first, 1e-7))))
        # The shortest round is the one that nothing disturbed.
        fastest = min(rounds(number, 3))
        if fastest < self.best_s:
            self._check(candidate)
            self.best_s = fastest
        return [fastest]

    def _check(self, candidate: Any) -> None:
        """Compare with the kernel as it was before scheduling: TVM's own rules can produce wrong code.

        Seen with a convolution whose epilogue is a padding: tiling it loses the bounds of the padded region.
        """
        import numpy as np

        tvm = import_tvm()
        if self.reference is None:
            self.reference = self._outputs(self.task.dispatched[0])
        found = self._outputs(candidate.sch.mod)
        for expected, got in zip(self.reference, found, strict=True):
            # Where the unscheduled kernel yields NaN on random inputs (a root, a logarithm), nothing can be compared.
            known = np.isfinite(expected)
            if not known.any():
                continue
            error = float(abs(got - expected)[known].max()) / max(float(abs(expected)[known].max()), 1e-30)
            if not error <= _TOLERANCE:
                raise tvm.error.InternalError(f"the schedule changes the result: relative error {error:.1e}")

    def _outputs(self, module: Any) -> list[Any]:
        tvm = import_tvm()
        from tvm.s_tir import meta_schedule as ms

        arguments = _tensors(random_arguments(ms.arg_info.ArgInfo.from_prim_func(self.task.dispatched[0]["main"])))
        tvm.tirx.build(module, target=self.target)["main"](*arguments)
        return [argument.numpy() for argument in arguments]


def random_arguments(infos: Any) -> list[Any]:
    """Arrays of the shapes and types that a kernel takes, the same in each call."""
    import numpy as np

    generator = np.random.default_rng(0)

    def array(info: Any) -> Any:
        shape = tuple(int(n) for n in info.shape)
        # Integers are indices, and zero is the one that is always valid.
        whole = "int" in str(info.dtype)
        return np.zeros(shape, str(info.dtype)) if whole else generator.standard_normal(shape).astype(str(info.dtype))

    return [array(info) for info in infos]


def _tensors(arrays: list[Any]) -> list[Any]:
    tvm = import_tvm()
    return [tvm.runtime.tensor(array) for array in arrays]


def schedule_rules(threads: int) -> list[Any]:
    """MetaSchedule's CPU rules, without parallel loops where there is one thread to run them."""
    import_tvm()
    from tvm.s_tir import meta_schedule as ms

    rules = list(ms.ScheduleRule.create("llvm"))
    if threads > 1:
        return rules
    serial = ms.schedule_rule.ParallelizeVectorizeUnroll(
        max_jobs_per_core=-1, max_vectorize_extent=64, unroll_max_steps=[0, 16, 64, 512], unroll_explicit=True
    )
    return [serial if isinstance(r, ms.schedule_rule.ParallelizeVectorizeUnroll) else r for r in rules]


if __name__ == "__main__":
    main()
