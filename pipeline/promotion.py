"""Which registered model is in use: the candidate takes over where it is not worse than the champion.

1. Find candidate and champion.
2. Decide the same labelled records with both: a file of the user's, else the dev set that both runs recorded.
3. Promote where the 95 % interval of the difference in micro-F1 reaches zero, or on a person's word.
4. Write down what was found with the version.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import corpus, registry
from pipeline.comparing import check_same_dev, read_decisions
from pipeline.errors import InputError, ModelError
from pipeline.metrics import PairedTest, paired_bootstrap
from pipeline.predict import Predictor
from pipeline.registry import CANDIDATE, CHAMPION, Version
from pipeline.taxonomy import load_taxonomy
from pipeline.tracking_client import Store
from pipeline.tracking_read import find_run


@dataclass(frozen=True)
class Promotion:
    """What came of it: ``test`` is candidate minus champion in micro-F1, None where they were not compared."""

    candidate: Version
    champion: Version | None
    promoted: bool
    sentence: str
    data: str
    records: int
    test: PairedTest | None

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain dicts, ready for JSON."""
        return {
            "candidate": self.candidate.number,
            "champion": self.champion.number if self.champion else None,
            "promoted": self.promoted,
            "sentence": self.sentence,
            "data": self.data,
            "records": self.records,
            "test": asdict(self.test) if self.test else None,
        }


@dataclass(frozen=True)
class _Measured:
    test: PairedTest
    data: str
    digest: str
    records: int


def promote(
    store: Store, *, name: str = registry.NAME, data: Path | None = None, reason: str = "", device: str = "auto"
) -> Promotion:
    """Make the candidate the champion where it is not worse on the same records.

    Args:
        store: the store.
        name: the registered model.
        data: a labelled file that neither model learned from; by default the dev set of both runs, on which thresholds
            were chosen.
        reason: why the candidate is promoted whatever the comparison says; empty: only if not worse.
        device: where the models run, where ``data`` is given.

    Returns:
        What was found and whether the alias moved.

    Raises:
        ModelError: there is no candidate.
        InputError: without ``reason``: the two cannot be compared.
        TrackingError: the store gives no answer.
    """
    candidate = registry.version(store, name, alias=CANDIDATE)
    if candidate is None:
        raise ModelError(f"Expected a candidate of {name} in the registry, found none; hepatag register RUN makes one.")
    champion = registry.version(store, name, alias=CHAMPION)
    if champion is not None and champion.number == candidate.number:
        sentence = f"{candidate} is the champion already."
        return Promotion(candidate, champion, False, sentence, "", 0, None)
    if champion is None:
        registry.set_champion(store, candidate, None, _tags("the first champion", None, None, reason))
        return Promotion(candidate, None, True, f"{candidate} is the first champion.", "", 0, None)
    measured, obstacle = None, ""
    try:
        measured = _measure(store, candidate, champion, data, device)
    except (InputError, ModelError) as error:
        if not reason:
            raise
        obstacle = str(error)
    good = measured is not None and measured.test.high >= 0
    sentence = _sentence(candidate, champion, measured, obstacle, good, reason)
    if good or reason:
        tags = _tags(f"version {champion.number}", measured, obstacle or None, "" if good else reason)
        registry.set_champion(store, candidate, champion, tags)
    return Promotion(
        candidate, champion, good or bool(reason), sentence, measured.data if measured else "",
        measured.records if measured else 0, measured.test if measured else None,
    )  # fmt: skip


def _measure(store: Store, candidate: Version, champion: Version, data: Path | None, device: str) -> _Measured:
    taxonomy = load_taxonomy()
    if data is not None:
        examples = corpus.read_examples([data])
        truth = corpus.label_matrix(examples, taxonomy)
        records = [example.record for example in examples]
        given = []
        for version in (candidate, champion):
            predictor = Predictor.from_folder(str(registry.folder_of(store, version)), device)
            given.append(predictor.decide(predictor.predict_proba(records)))
        return _Measured(
            paired_bootstrap(truth, given[0], given[1], taxonomy), data.name, corpus.digest(examples), len(examples)
        )
    new, old = (find_run(store, version.run_id) for version in (candidate, champion))
    here, there = read_decisions(store, new), read_decisions(store, old)
    try:
        check_same_dev(new, here, old, there)
    except InputError:
        raise InputError(
            f"Expected candidate and champion to be measured on the same dev set, found different ones ({new}, {old}); "
            "give a labelled file that neither learned from: hepatag promote --data FILE."
        ) from None
    test = paired_bootstrap(here.truth, here.given, there.given, taxonomy)
    return _Measured(test, "dev", "+".join(new.digests("validation")), len(here.ids))


def _sentence(
    candidate: Version, champion: Version, measured: _Measured | None, obstacle: str, good: bool, reason: str
) -> str:
    if measured is None:
        return f"{candidate} is the champion, unmeasured ({obstacle.rstrip('.')}), because: {reason}."
    test = measured.test
    found = (
        f"{test.difference:+.3f} micro-F1 (95 % interval {test.low:+.3f} to {test.high:+.3f}) against "
        f"version {champion.number} on the same {measured.records} records of {measured.data}"
    )
    if good:
        return f"{candidate} is the champion: not worse, {found}."
    if reason:
        return f"{candidate} is the champion though worse, {found}, because: {reason}."
    return f"{candidate} stays a candidate: worse, {found}; --force --reason WHY promotes it all the same."


def _tags(against: str, measured: _Measured | None, obstacle: str | None, reason: str) -> dict[str, str]:
    tags = {"hepatag.promoted": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "hepatag.promoted_over": against}
    if measured is not None:
        test = measured.test
        tags["hepatag.promoted_on"] = f"{measured.data} {measured.digest[:12]}, {measured.records} records"
        tags["hepatag.promoted_difference"] = f"{test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f})"
    if obstacle:
        tags["hepatag.promoted_unmeasured"] = obstacle[:500]
    if reason:
        tags["hepatag.promoted_by_force"] = reason[:500]
    return tags
