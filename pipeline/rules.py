"""Keyword rules: labels from the names of cancers, procedures and drugs, without any learned model.

`profile` turns a record's mentions (see `lexicon`) into signs, and the score cards of ``rules.yaml`` add points for
signs. A label's score is the logistic function of its points; `KeywordRules.decide` keeps what the scheme allows.
The points were fitted once on the training files and rounded (see the top of ``rules.yaml``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.lexicon import RULES_ONLY, STUDIED, TITLE, mentions, strengths
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy

AXES_BY_CONCEPT = ("ir_modality", "immunotherapy")
"""Axes whose labels stand or fall with the mentions of their own concept."""

NEVER = -9.0
"""Log-odds of a treatment label whose concept the text does not name."""

PARTNERS = {"immuno": "immunotherapy:", "targeted": "drug:targeted", "chemo": "drug:systemic_chemotherapy"}
"""What IR is combined with: name in signs → prefix of the concepts."""

TREATMENT_GROUPS = {"ir_modality", "immunotherapy", "drug", "other"}

JOINT = (
    ("result:immune_adverse_event@studied", "immunotherapy@studied"),
    ("result:immune_adverse_event@studied", "immunotherapy@title"),
    ("result:immune_response@studied", "immunotherapy@studied"),
    ("result:immune_response@studied", "ir_modality@studied"),
    ("result:immune_response@often", "treatment@title"),
    ("result:efficacy@studied", "treatment@title"),
    ("result:efficacy@studied", "design:preclinical@often"),
    ("result:safety@studied", "treatment@title"),
    ("design:model@title", "treatment@title"),
    ("design:imaging@title", "treatment@title"),
    ("design:retro_strong@studied", "treatment@title"),
    ("design:treated_cohort@studied", "treatment@title"),
)
"""Pairs of signs that say more together than apart."""

OWN_CONCEPTS: Mapping[str, tuple[str, ...]] = {"ir_modality:tae": ("ir_modality:tae", "cue:embolization")}
"""Labels found by more than the concept of their name."""

_LOCAL = "rfa mwa cryoablation ire focused_ultrasound laser_ablation chemical_ablation ablation_nos"
_ARTERIAL = "tace deb_tace tae tare haic portal_vein_embolization"
FAMILIES: tuple[frozenset[str], ...] = (
    frozenset(f"ir_modality:{name}" for name in _ARTERIAL.split()),
    frozenset(f"ir_modality:{name}" for name in _LOCAL.split()),
    frozenset(f"immunotherapy:{name}" for name in ("anti_pd1", "anti_pdl1", "anti_ctla4", "checkpoint_nos")),
)
"""Labels of one kind: a general term beside a specific one of its family seldom means a second treatment."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the rules see of a record: ``strength`` per concept, studied mentions per concept, signs."""

    strength: Mapping[str, int]
    studied: Mapping[str, int]
    signs: frozenset[str]


def profile(title: str, abstract: str) -> Profile:
    """Signs of a text: ``concept`` (named), ``concept@studied``, ``…@title``, ``…@often``, and joint ones."""
    found = mentions(title, abstract)
    strength = strengths(found)
    studied = Counter(mention.concept for mention in found if mention.strength == STUDIED)
    by_sentence: dict[int, set[str]] = defaultdict(set)
    for mention in found:
        if mention.strength >= STUDIED:
            by_sentence[mention.sentence].add(mention.concept)
    named = {concept: level for concept, level in strength.items() if not concept.startswith(RULES_ONLY)}
    signs = set(named)
    signs.update(f"{concept}@studied" for concept, level in named.items() if level >= STUDIED)
    signs.update(f"{concept}@title" for concept, level in named.items() if level == TITLE)
    signs.update(f"{concept}@often" for concept, count in studied.items() if count >= 3 and concept in named)
    signs.update(_group_signs(named))
    signs.update(f"{one}&{other}" for one, other in JOINT if one in signs and other in signs)
    signs.update(_metastasis_signs(strength))
    signs.update(_combination_signs(by_sentence))
    if not title:
        signs.add("no_title")
    return Profile(strength, studied, frozenset(signs))


def _group_signs(strength: Mapping[str, int]) -> Iterable[str]:
    """``ir_modality@studied`` and the like: any concept of a group; ``treatment`` is any of the treatments."""
    for concept, level in strength.items():
        group = concept.split(":")[0]
        for name in (group, "treatment") if group in TREATMENT_GROUPS else (group,):
            if level >= STUDIED:
                yield f"{name}@studied"
            if level == TITLE:
                yield f"{name}@title"


def _metastasis_signs(strength: Mapping[str, int]) -> Iterable[str]:
    """Liver metastases and the primaries named with them."""
    if strength.get("cue:liver_metastases", 0) < STUDIED:
        return
    primaries = [
        p for p in ("colorectal", "neuroendocrine", "melanoma", "other_primary_site") if f"cue:{p}" in strength
    ]
    for primary in primaries:
        if strength[f"cue:{primary}"] >= STUDIED:
            yield f"metastases+{primary}"
        if strength[f"cue:{primary}"] == TITLE:
            yield f"metastases+{primary}@title"
    if not primaries:
        yield "metastases+no_primary"


def _combination_signs(by_sentence: Mapping[int, set[str]]) -> Iterable[str]:
    """IR and a systemic partner in one sentence (or the title), with words of combining or comparing.

    ``ir+immuno+targeted`` says that both partners stand beside IR: what tells three treatments from two;
    ``…+only_versus@title`` that the title compares and combines nothing.
    """
    together: Counter[str] = Counter()
    for number, concepts in by_sentence.items():
        if not any(concept.startswith("ir_modality:") for concept in concepts):
            continue
        place = "@title" if number == 0 else ""
        partners = {name for name, prefix in PARTNERS.items() if any(c.startswith(prefix) for c in concepts)}
        together.update(partners)
        if {"immuno", "targeted"} <= partners:
            yield f"ir+immuno+targeted{place}"
        for name in partners:
            yield f"ir+{name}{place}"
            for cue in ("combination", "versus", "sequence"):
                if f"cue:{cue}" in concepts:
                    yield f"ir+{name}+{cue}{place}"
            if place and "cue:versus" in concepts and "cue:combination" not in concepts:
                yield f"ir+{name}+only_versus{place}"
    for name, count in together.items():
        if count >= 3:
            yield f"ir+{name}@often"


def own_signs(label: str, seen: Profile) -> frozenset[str]:
    """Signs for one treatment label: how its concept is mentioned, and how others of its axis are.

    Empty when the concept is not named at all.
    """
    own = OWN_CONCEPTS.get(label, (label,))
    level = max(seen.strength.get(concept, 0) for concept in own)
    if not level:
        return frozenset()
    count = sum(seen.studied.get(concept, 0) for concept in own)
    axis = label.split(":")[0]
    family = next((family for family in FAMILIES if label in family), frozenset[str]())
    rivals = {
        concept: strength
        for concept, strength in seen.strength.items()
        if concept.startswith(axis) and concept not in own and not concept.endswith("_nos") and strength >= STUDIED
    }
    tests = {
        "named": True,
        "title": level == TITLE,
        "studied": level >= STUDIED,
        "studied_twice": count >= 2,
        "studied_often": count >= 4,
        "strong_term": label in seen.strength,
        "rival_studied": bool(rivals),
        "rivals_many": len(rivals) >= 3,
        "rival_title": level < TITLE and TITLE in rivals.values(),
        "kin_studied": any(concept in family for concept in rivals),
        "kin_title": any(rivals[concept] == TITLE for concept in rivals if concept in family),
        "treatment_title": level < TITLE
        and bool({"ir_modality@title", "immunotherapy@title", "drug@title"} & seen.signs),
        "surgery_title": "other@title" in seen.signs,
        "no_title": "no_title" in seen.signs,
        "review": "design:review@studied" in seen.signs or "design:guideline@title" in seen.signs,
        "registration": "design:will@studied" in seen.signs,
        "beads": label == "ir_modality:tace" and _only_beads(seen.strength),
        "antiviral": label == "immunotherapy:cytokine" and "drug:antiviral" in seen.strength,
        "risk_only": not {"ir_modality@studied", "cancer_type@studied"} & seen.signs,
    }
    return frozenset(name for name, holds in tests.items() if holds)


def _only_beads(strength: Mapping[str, int]) -> bool:
    """Whether a text that speaks of chemoembolization means that with beads: it studies beads and names no oil."""
    conventional = max(strength.get("sign:conventional", 0), strength.get("cue:lipiodol", 0))
    return strength.get("ir_modality:deb_tace", 0) >= STUDIED > conventional


@dataclass(frozen=True, slots=True)
class Card:
    """A score card: points for signs, from an offset."""

    offset: float
    points: Mapping[str, float]

    def score(self, signs: Iterable[str]) -> float:
        """The sum of points, as log-odds.

        Signs come from sets, whose order changes from run to run; rounding makes the sum the same in any order.
        """
        return round(self.offset + sum(self.points.get(sign, 0.0) for sign in signs), 6)


@cache
def load_cards() -> dict[str, Card]:
    """The score cards of ``rules.yaml`` by name: ``scope``, full label names and kinds of treatment labels."""
    data: dict[str, Any] = yaml.safe_load(files("pipeline").joinpath("rules.yaml").read_text(encoding="utf-8"))
    return {name: Card(card["offset"], card["points"]) for name, card in data["cards"].items()}


def card_of(label: str) -> str:
    """Name of the card that scores a treatment label."""
    axis, name = label.split(":")
    return f"{axis}:general" if name.endswith("_nos") else label if label in OWN_CONCEPTS else f"{axis}:specific"


def score_labels(seen: Profile, cards: Mapping[str, Card] | None = None) -> NDArray[np.float64]:
    """Scores of all labels, shape (labels,), from 0 to 1, from the signs of one text; ``cards`` in place of ours."""
    taxonomy, cards = load_taxonomy(), cards or load_cards()
    points = np.array([_points(name, seen, cards) for name in taxonomy.names])
    scores = 1 / (1 + np.exp(-points))
    for axis in taxonomy.constraints.exactly_one:
        columns = taxonomy.columns[axis]
        odds = np.exp(points[columns] - points[columns].max())
        scores[columns] = odds / odds.sum()
    scope = 1 / (1 + np.exp(-cards["scope"].score(seen.signs)))
    if scope < 0.5:
        return scores * min(2 * scope, 0.999)
    # In scope without a sure cancer type: the likeliest counts, since the scheme asks for one.
    columns = taxonomy.columns[taxonomy.constraints.scope_axis]
    best = columns.start + int(scores[columns].argmax())
    scores[best] = max(scores[best], 0.5)
    return scores


def _points(name: str, seen: Profile, cards: Mapping[str, Card]) -> float:
    """Log-odds of one label."""
    if name.split(":")[0] not in AXES_BY_CONCEPT:
        return cards[name].score(seen.signs)
    signs = own_signs(name, seen)
    return cards[card_of(name)].score(signs) if signs else NEVER


class KeywordRules:
    """The keyword rules as a labeller, a baseline for the models."""

    name = "rules"

    def __init__(self) -> None:
        self._taxonomy = load_taxonomy()

    def predict_proba(self, records: Sequence[Record]) -> NDArray[np.float32]:
        """Scores of each record.

        Args:
            records: the records, in any number.

        Returns:
            float32 array of shape (records, labels), columns as in `Taxonomy.names`, values from 0 to 1; those of a
            record out of scope stay below 0.5, and one in scope has a cancer type of at least 0.5.
        """
        rows = np.empty((len(records), len(self._taxonomy.names)), dtype=np.float32)
        for row, record in zip(rows, records, strict=True):
            row[:] = score_labels(profile(record.title, record.abstract_text()))
        return rows

    def decide(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Label sets that keep every rule of the scheme.

        Args:
            probabilities: scores of shape (records, labels) as `predict_proba` returns them.

        Returns:
            bool array of the same shape.
        """
        taxonomy, rules = self._taxonomy, self._taxonomy.constraints
        chosen: NDArray[np.bool_] = np.asarray(np.greater_equal(probabilities, 0.5), dtype=bool)
        chosen &= chosen[:, taxonomy.columns[rules.scope_axis]].any(axis=1, keepdims=True)
        in_scope: NDArray[np.bool_] = np.asarray(chosen.any(axis=1))
        for axis in rules.exactly_one:
            columns = taxonomy.columns[axis]
            best = probabilities[:, columns].argmax(axis=1)
            chosen[:, columns] = in_scope[:, None] & (np.arange(columns.stop - columns.start) == best[:, None])
        for axis, needed in rules.requires_axis.items():
            chosen[:, taxonomy.columns[axis]] &= chosen[:, taxonomy.columns[needed]].any(axis=1, keepdims=True)
        for name, needed in rules.requires_label.items():
            chosen[:, taxonomy.index[name]] &= chosen[:, taxonomy.columns[needed]].any(axis=1)
        return chosen
