"""A search for the best settings, as a numbered list of steps, from a sweep's config to one that `hepatag train` takes.

1. Read the configs and the data; open the study, which remembers every trial.
2. Take up what an earlier process left: trials that were cut short are done again.
3. Trials: ask for settings, train, tell the dev score. One that falls behind the median is given up.
4. Write the best settings as a config.
5. Train them with each seed.

The study is Optuna's, in a database beside the tracking store, one per combination of space, score, seed, training
config and data; another combination is another study. Proposals come from a tree-structured Parzen estimator (Bergstra
et al. 2011, https://papers.nips.cc/paper/4443) that is seeded anew for each trial, so that a sweep which was killed
proposes what an undisturbed one would have. In MLflow, trials and seeds are runs nested below one parent.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import corpus
from pipeline.config import TrainConfig
from pipeline.errors import ConfigError, Interrupted, Pruned, TrackingError
from pipeline.files import replacing
from pipeline.lock import hold
from pipeline.runs import Run
from pipeline.sweep_config import Dimension, SweepConfig, is_whole, load_sweep, trial_settings
from pipeline.sweep_result import Swept, Trial, as_text, describe, parent_metrics
from pipeline.tracking import start_run
from pipeline.tracking_client import connect
from pipeline.tracking_read import list_runs
from pipeline.tracking_uri import artifact_root, is_off, resolve_store
from pipeline.train import Trained, checkpoints_of, read_data, short_settings, train

if TYPE_CHECKING:
    from pipeline.fitting import Progress


def sweep(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    trials: int | None = None,
    device: str = "auto",
    report: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Swept:
    """Search for the best settings, going on with what an earlier process did of the same sweep.

    Args:
        path: the sweep's config.
        overrides: ``key=value`` each, of the sweep or of the training config.
        trials: how many in all, in place of the config's.
        device: auto, cpu, cuda or mps.
        report: called with the progress of each training.
        say: called with a line about each trial.

    Returns:
        The trials, the best, and the config that was written.

    Raises:
        ConfigError: a config is wrong, or Optuna is not installed.
        InputError, LabelError, ModelError, OutputError, TrackingError: as for `train.train`; also another process that
            works on the same sweep.
        Interrupted: ended by Ctrl-C or SIGTERM; the same command goes on.
    """
    _quiet_optuna()
    # 1. Configs, data, study
    settings, rest = load_sweep(path, overrides)
    base = trial_settings(settings, rest, {})
    data = read_data(base)
    for warning in data.warnings:
        say(f"Warning: {warning}.")
    name = _study_name(path, settings, base, (corpus.digest(data.train), corpus.digest(data.dev)))
    place = _home(base) / name
    place.mkdir(parents=True, exist_ok=True)
    with hold(place):
        work = _Sweep(path, settings, rest, base, trials or settings.trials, place, device, report, say)
        # 2. What was left
        work.take_up()
        with work.parent() as run:
            try:
                return work.run(run)
            except Interrupted:
                raise Interrupted(
                    f"Sweep stopped on request, {len(work.done())} of {work.wanted} trials are done; the same command "
                    "goes on."
                ) from None


class _Sweep:
    """One sweep at work, its study open."""

    def __init__(
        self,
        path: Path,
        settings: SweepConfig,
        rest: Sequence[str],
        base: TrainConfig,
        wanted: int,
        place: Path,
        device: str,
        report: Callable[[Progress], None] | None,
        say: Callable[[str], None],
    ) -> None:
        import optuna

        self.path, self.settings, self.rest, self.base, self.wanted = path, settings, rest, base, wanted
        self.device, self.report, self.say = device, report, say
        self.place, self.name = place, place.name
        self.folder = base.output.with_name(base.output.name + ".sweep")
        self.study = optuna.create_study(
            storage=f"sqlite:///{place.absolute()}/optuna.db",
            study_name=self.name,
            direction="maximize",
            load_if_exists=True,
            # The first trials run to their end: what a median is taken of.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=max(2, min(5, wanted // 3))),
        )

    def take_up(self) -> None:
        """Tell the study of trials that were cut short and line them up again; close the runs that they left open."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
        for left in self.place.glob("trial-*"):
            shutil.rmtree(left, ignore_errors=True)
        again = list(self.study.user_attrs.get("again", []))
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
            if trial.number not in again:
                self.say(f"Trial {trial.number} was cut short and is done again.")
                self.study.enqueue_trial(trial.params)
                again.append(trial.number)
        self.study.set_user_attr("again", again)
        if again and not is_off(self.base.tracking.uri):
            with suppress(TrackingError):  # a store that is away is told of when the parent opens
                store = connect(self.base.tracking.uri)
                open_runs = f"tags.`hepatag.sweep` = '{self.name}' and attributes.status = 'RUNNING'"
                for run in list_runs(store, where=open_runs):
                    store.client.set_terminated(run.id, "KILLED")

    @contextmanager
    def parent(self) -> Iterator[Run]:
        """The parent run: the one of before where there is one."""
        before = self.study.user_attrs.get("parent")
        with start_run(
            self.base.tracking.uri,
            self.base.tracking.experiment,
            f"sweep {self.base.output.name}",
            tags={"hepatag.kind": "sweep", "hepatag.sweep": self.name},
            run_id=before,
        ) as run:
            self.study.set_user_attr("parent", run.id)
            space = {f"space.{key}": _space_text(one) for key, one in self.settings.space.items()}
            run.log_params({"metric": self.settings.metric, "seed": self.settings.seed, **space})
            run.log_file(self.path, "config")
            yield run

    def run(self, parent: Run) -> Swept:
        """Steps 3 to 5."""
        # 3. Trials
        while len(self.done()) < self.wanted:
            self._trial(parent)
        trials = self.done()
        best = max((one for one in trials if not one.pruned), key=lambda one: one.score)
        # 4. The config
        config = self.folder / "best.yaml"
        _write_best(config, self._best_yaml(best, len(trials)))
        # 5. Seeds
        for seed in self.settings.seeds:
            if self._seed_key(best, seed) not in self.study.user_attrs:
                self._train_seed(parent, best, seed)
        seeds = {seed: self.study.user_attrs[self._seed_key(best, seed)] for seed in self.settings.seeds}
        found = Swept(best, trials, seeds, config, parent.id)
        parent.log_metrics(parent_metrics(found, self.settings.metric))
        parent.log_file(config, "config")
        parent.set_description(describe(found, self.settings.metric))
        return found

    def done(self) -> tuple[Trial, ...]:
        """The trials that count, in their order."""
        from optuna.trial import TrialState

        found = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return tuple(
            Trial(one.number, one.user_attrs["values"], float(one.value), one.state == TrialState.PRUNED)
            for one in found
            if one.value is not None
        )

    def _trial(self, parent: Run) -> None:
        import optuna
        from optuna.trial import TrialState

        # A sampler that is resumed with its seed would draw again what it drew first.
        number = len(self.study.get_trials(deepcopy=False))
        startup = max(3, min(10, self.wanted // 3))
        self.study.sampler = optuna.samplers.TPESampler(seed=self.settings.seed + number, n_startup_trials=startup)
        trial = self.study.ask()
        values = {key: _suggest(trial, key, one) for key, one in self.settings.space.items()}
        trial.set_user_attr("values", values)
        name = " · ".join([f"trial {trial.number}", *short_settings(values)])
        folder = self.place / f"trial-{trial.number}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            settings = self._training(values, name, folder / self.base.output.name, log_model=False)
            done = self._train(parent, settings, "trial", {"hepatag.trial": str(trial.number)}, self._watch(trial))
            score = _scores(done)[self.settings.metric]
            self.study.tell(trial, score)
            self.say(f"{name}: {self.settings.metric} {score:.3f}")
        except Pruned as why:
            self.study.tell(trial, state=TrialState.PRUNED)
            self.say(f"{name}: {why}")
        except BaseException:
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # MLflow and the study keep what is worth keeping

    def _watch(self, trial: Any) -> Callable[[Progress], None]:
        """Report each evaluation to the study, and give the trial up where it has fallen behind."""
        evaluations = 0

        def tell(progress: Progress) -> None:
            nonlocal evaluations
            if self.report:
                self.report(progress)
            if not progress.scores:
                return
            evaluations += 1  # not the step: with another batch size a step is another amount of work
            score = progress.scores[self.settings.metric]
            trial.report(score, evaluations)
            if progress.step < progress.steps and trial.should_prune():
                raise Pruned(
                    f"given up at step {progress.step} of {progress.steps}: {self.settings.metric} {score:.3f} is "
                    "below the median of the trials before"
                )

        return tell

    def _train_seed(self, parent: Run, best: Trial, seed: int) -> None:
        values = {**best.values, "training.seed": seed}
        name = " · ".join([f"seed {seed}", *short_settings(best.values)])
        log_model = self.base.tracking.log_model
        settings = self._training(values, name, self.folder / f"seed-{seed}", log_model=log_model)
        shutil.rmtree(checkpoints_of(settings), ignore_errors=True)
        done = self._train(parent, settings, "seed", {}, self.report)
        scores = _scores(done)
        self.study.set_user_attr(self._seed_key(best, seed), scores)
        self.say(f"{name}: {self.settings.metric} {scores[self.settings.metric]:.3f}; {settings.output}")

    def _training(self, values: Mapping[str, Any], name: str, output: Path, *, log_model: bool) -> TrainConfig:
        settings = trial_settings(self.settings, self.rest, values)
        tracking = settings.tracking.model_copy(update={"run_name": name, "log_model": log_model})
        return settings.model_copy(update={"tracking": tracking, "output": output})

    def _train(
        self,
        parent: Run,
        settings: TrainConfig,
        kind: str,
        tags: Mapping[str, str],
        report: Callable[[Progress], None] | None,
    ) -> Trained:
        below = {"mlflow.parentRunId": parent.id} if parent.id else {}
        tags = {"hepatag.kind": kind, "hepatag.sweep": self.name, **below, **tags}
        # A choice that is the default too: a plot of all trials must not have holes.
        params = {key: _value_at(settings, key) for key in self.settings.space}
        return train(settings, device=self.device, report=report, tags=tags, params=params)

    def _seed_key(self, best: Trial, seed: int) -> str:
        return f"seed {seed} of trial {best.number}"

    def _best_yaml(self, best: Trial, trials: int) -> str:
        """The best settings as a config: what differs from the defaults, its command and what it is on top."""
        settings = trial_settings(self.settings, self.rest, best.values)
        content = settings.model_dump(mode="json", exclude_defaults=True, exclude={"tracking"})
        tracking = settings.tracking.model_dump(mode="json", exclude_unset=True)
        if tracking:
            content["tracking"] = tracking
        path = self.folder / "best.yaml"
        head = (
            f"# hepatag train {path}\n"
            f"# Trial {best.number}, the best of {trials} of hepatag sweep {self.path}: {self.settings.metric} "
            f"{best.score:.3f} on the dev set\n# that chose it, which flatters; a claim needs a test set.\n"
        )
        return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _quiet_optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            'Expected Optuna for hepatag sweep, found it not installed; pip install "hepatag[sweep]".'
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _study_name(path: Path, settings: SweepConfig, base: TrainConfig, digests: Sequence[str]) -> str:
    """A name from all that makes two trials' scores comparable; how many trials and seeds is not part of it."""
    searched = settings.model_dump(mode="json", exclude={"train", "trials", "seeds"})
    start = base.model_dump(mode="json", exclude={"output", "tracking"})
    identity = json.dumps([searched, start, *digests], sort_keys=True)
    return f"{path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _home(base: TrainConfig) -> Path:
    """Where studies lie: beside the tracking store, or beside the output where nothing is tracked."""
    if is_off(base.tracking.uri):
        return base.output.parent / "sweeps"
    return artifact_root(resolve_store(base.tracking.uri)).parent / "sweeps"


def _suggest(trial: Any, key: str, one: Dimension) -> Any:
    if one.choices is not None:
        return trial.suggest_categorical(key, one.choices)
    assert one.low is not None and one.high is not None
    if is_whole(key):
        return trial.suggest_int(key, one.low, one.high, log=one.log)
    drawn = trial.suggest_float(key, one.low, one.high, log=one.log)
    # Three digits are more than a training can tell apart, and fit a name.
    return min(max(float(f"{drawn:.3g}"), one.low), one.high)


def _write_best(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _value_at(settings: TrainConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def _scores(done: Trained) -> dict[str, float]:
    everything = done.report.groups["all"]
    return {"f1_macro": everything.f1_macro.value, "f1_micro": everything.f1_micro.value}


def _space_text(one: Dimension) -> str:
    if one.choices is not None:
        return ", ".join(map(as_text, one.choices))
    return f"{as_text(one.low)} to {as_text(one.high)}{', logarithmic' if one.log else ''}"
