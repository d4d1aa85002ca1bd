import numpy as np
import pytest

from pipeline.corpus import Example
from pipeline.errors import InputError, ModelError
from pipeline.records import Record, Section
from pipeline.taxonomy import load_taxonomy
from pipeline.tfidf import TfidfBaseline

TAXONOMY = load_taxonomy()
KINDS = {
    "chemoembolization of hepatoma": {"cancer_type:hcc", "ir_modality:tace"},
    "microwave heating of bowel metastases": {"cancer_type:colorectal_mets", "ir_modality:mwa"},
    "fatty liver and diet": set(),
}
DESIGNS = {"a randomized comparison": "study_design:randomized_trial", "we looked back": "study_design:retrospective"}


def record(identifier, title, abstract):
    return Record(id=identifier, title=title, abstract=(Section("", abstract),))


def examples(copies):
    found = []
    for copy in range(copies):
        for title, labels in KINDS.items():
            for abstract, design in DESIGNS.items():
                text = record(f"{copy}-{title}-{design}", title, f"{abstract} in centre {copy}")
                found.append(Example(text, frozenset({*labels, design} if labels else ())))
    return found


@pytest.fixture(scope="module")
def baseline():
    return TfidfBaseline().fit(examples(8))


def test_learns_what_the_words_say(baseline):
    new = [
        record("n1", "chemoembolization of hepatoma", "a randomized comparison in town"),
        record("n2", "microwave heating of bowel metastases", "we looked back in town"),
        record("n3", "fatty liver and diet", "we looked back in town"),
    ]
    decided = baseline.decide(baseline.predict_proba(new))
    found = [{TAXONOMY.names[column] for column in np.flatnonzero(row)} for row in decided]
    assert found == [
        {"cancer_type:hcc", "ir_modality:tace", "study_design:randomized_trial"},
        {"cancer_type:colorectal_mets", "ir_modality:mwa", "study_design:retrospective"},
        set(),
    ]


def test_probabilities_have_the_shape_and_columns_of_the_scheme(baseline):
    records = [example.record for example in examples(1)]
    values = baseline.predict_proba(records)
    assert values.shape == (6, len(TAXONOMY.names))
    assert values.dtype == np.float32
    assert ((values >= 0) & (values <= 1)).all()
    assert baseline.predict_proba([]).shape == (0, len(TAXONOMY.names))
    assert baseline.name == "tfidf"


def test_a_label_without_a_positive_has_probability_nought(baseline):
    seen = set().union(*(example.labels for example in examples(1)))
    unseen = [column for name, column in TAXONOMY.index.items() if name not in seen]
    values = baseline.predict_proba([record("n", "chemoembolization of hepatoma", "a randomized comparison")])
    assert (values[:, unseen] == 0).all()
    assert (values[:, [TAXONOMY.index[name] for name in seen]] > 0).all()


def test_a_record_without_known_words_is_labelled_all_the_same(baseline):
    values = baseline.predict_proba([record("n", "", "zzz"), record("m", "", "")])
    assert np.isfinite(values).all()
    assert (values[0] == values[1]).all()


def test_two_fits_agree():
    records = [example.record for example in examples(1)]
    one, two = (TfidfBaseline().fit(examples(4)) for _ in range(2))
    assert (one.predict_proba(records) == two.predict_proba(records)).all()
    assert one.thresholds is not None
    assert (one.thresholds == two.thresholds).all()


def test_a_label_that_always_holds_is_always_given():
    chosen = [example for example in examples(4) if "cancer_type:hcc" in example.labels]
    baseline = TfidfBaseline().fit(chosen)
    values = baseline.predict_proba([record("n", "anything", "else")])
    assert values[0, TAXONOMY.index["cancer_type:hcc"]] == 1


def test_too_little_to_learn_from():
    with pytest.raises(InputError, match="at least 3"):
        TfidfBaseline().fit(examples(1)[:2])
    with pytest.raises(InputError, match="words"):
        TfidfBaseline().fit([Example(record(str(n), "", "- ."), frozenset()) for n in range(6)])


def test_an_unfitted_baseline_says_so():
    with pytest.raises(ModelError, match="fit"):
        TfidfBaseline().predict_proba([])
    with pytest.raises(ModelError, match="fit"):
        TfidfBaseline().decide(np.zeros((1, len(TAXONOMY.names))))
