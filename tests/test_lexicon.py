"""Terms, strengths and the traps of acronyms, on sentences of our own."""

from __future__ import annotations

import re

import pytest

from pipeline import lexicon
from pipeline.lexicon import LEXICON_VERSION, concepts, evidence, load_lexicon, mentions, translate
from pipeline.taxonomy import load_taxonomy

MADE = "METHODS: Forty patients with hepatocellular carcinoma had {}. RESULTS: Most did well."


@pytest.mark.parametrize(
    ("words", "concept"),
    [
        ("radio-frequency ablation", "ir_modality:rfa"),
        ("RFA", "ir_modality:rfa"),
        ("microwave coagulation", "ir_modality:mwa"),
        ("transarterial chemoembolisation", "ir_modality:tace"),
        ("transcatheter arterial chemo-embolization", "ir_modality:tace"),
        ("cTACE", "ir_modality:tace"),
        ("DEB‐TACE", "ir_modality:deb_tace"),  # a typographic hyphen
        ("irinotecan-eluting beads", "ir_modality:deb_tace"),
        ("selective internal radiation therapy", "ir_modality:tare"),
        ("(90)Y microspheres", "ir_modality:tare"),
        ("⁹⁰Y microspheres", "ir_modality:tare"),
        ("Y-90 resin microspheres", "ir_modality:tare"),
        ("hepatic arterial infusion chemotherapy", "ir_modality:haic"),
        ("percutaneous ethanol injection", "ir_modality:chemical_ablation"),
        ("iodine-125 seed implantation", "ir_modality:brachytherapy"),
        ("liver venous deprivation", "ir_modality:portal_vein_embolization"),
        ("histotripsy", "ir_modality:focused_ultrasound"),
        ("irreversible electroporation", "ir_modality:ire"),
        ("camrelizumab", "immunotherapy:anti_pd1"),
        ("SHR-1210", "immunotherapy:anti_pd1"),
        ("atezolizumab", "immunotherapy:anti_pdl1"),
        ("tremelimumab", "immunotherapy:anti_ctla4"),
        ("cytokine-induced killer cells", "immunotherapy:cell_therapy"),
        ("JX-594", "immunotherapy:oncolytic_virus"),
        ("OK-432", "immunotherapy:other_immunotherapy"),
        ("rivoceranib", "drug:targeted"),
        ("capecitabine", "drug:systemic_chemotherapy"),
        ("TACE with HepaSphere™ microspheres", "ir_modality:deb_tace"),
        ("TACE-DEB", "ir_modality:deb_tace"),
        ("TATE with tirapazamine", "ir_modality:tace"),
        ("transarterial ethanol ablation", "ir_modality:tae"),
        ("yttrium-90-labelled glass microspheres", "ir_modality:tare"),
        ("FOLFOX-HAIC", "ir_modality:haic"),
        ("transcatheter arterial infusion (TAI)", "ir_modality:haic"),
        ("extended liver venous deprivation", "ir_modality:portal_vein_embolization"),
        ("local-regional therapy", "ir_modality:ir_nos"),
        ("HFIRE", "ir_modality:ire"),
        ("nofazinlimab", "immunotherapy:anti_pd1"),
        ("lenvatinib plus PD-1", "immunotherapy:anti_pd1"),
        ("iparomlimab and tuvonralimab", "immunotherapy:anti_ctla4"),
        ("tagitanlimab", "immunotherapy:anti_pdl1"),
        ("immune checkpoint blockade (ICB)", "immunotherapy:checkpoint_nos"),
        ("immune checkpoint and tyrosine kinase inhibitors", "immunotherapy:checkpoint_nos"),
        ("tyrosine kinase and immune checkpoint inhibitors", "drug:targeted"),
        ("natural killer (NK) cell infusion", "immunotherapy:cell_therapy"),
        ("thymopentin", "immunotherapy:cytokine"),
        ("engineered vaccinia", "immunotherapy:oncolytic_virus"),
        ("bavituximab", "immunotherapy:other_immunotherapy"),
        ("cisplatin-gemcitabine", "drug:systemic_chemotherapy"),
    ],
)
def test_names_of_treatments_are_found_where_they_were_given(words, concept):
    assert evidence("", MADE.format(words))[concept] == 2


def test_title_is_stronger_than_the_abstract_and_may_be_missing():
    text = "METHODS: We treated liver tumours by cryoablation."
    assert evidence("Cryoablation near the gallbladder", text)["ir_modality:cryoablation"] == 3
    assert evidence("", text)["ir_modality:cryoablation"] == 2
    assert evidence("", "") == {}


@pytest.mark.parametrize(
    "text",
    [
        "BACKGROUND: Nivolumab is often given today. METHODS: We counted nodules on ultrasound.",
        "Background Nivolumab is often given today. Methods We counted nodules on ultrasound.",
        "Nivolumab is often given today. Here we counted nodules on ultrasound. Forty were seen. Few grew.",
        "METHODS: The tumour was refractory to nivolumab in all patients.",
        "METHODS: Nivolumab-refractory tumours were resected.",
        "METHODS: Patients who had received nivolumab were excluded.",
        "CONCLUSION: Future trials of nivolumab are needed.",
    ],
)
def test_a_mere_mention_is_weak(text):
    assert evidence("", text)["immunotherapy:anti_pd1"] == 1


def test_with_or_without_says_that_it_was_given():
    assert evidence("", MADE.format("TACE with or without nivolumab"))["immunotherapy:anti_pd1"] == 2
    assert evidence("", MADE.format("TACE without nivolumab"))["immunotherapy:anti_pd1"] == 1


def test_a_background_that_nothing_follows_is_the_whole_abstract():
    text = "BACKGROUND: Nodules recur. Forty people were given nivolumab. Most did well."
    assert evidence("", text)["immunotherapy:anti_pd1"] == 2
    assert evidence("", f"{text} METHODS: We counted nodules.")["immunotherapy:anti_pd1"] == 1


@pytest.mark.parametrize(
    "words",
    ["Forty patients were TACE-naïve", "No patients received TACE", "Forty were unable to be catheterised for TACE"],
)
def test_a_treatment_that_was_not_given_is_a_mere_mention(words):
    assert evidence("", f"METHODS: {words} at the start.")["ir_modality:tace"] == 1


@pytest.mark.parametrize(
    ("text", "concept"),
    [
        ("Hepatocyte growth factor activator inhibitor HAI-1 was stained.", "ir_modality:haic"),
        ("An intralesional steatosis and intratumoral adipocytes were seen.", "ir_modality:intratumoral_injection"),
        ("A 90Y-labelled antibody was given.", "ir_modality:tare"),
        ("The COVID-19 vaccine was given.", "immunotherapy:vaccine"),
        ("It has immunomodulatory effects.", "immunotherapy:other_immunotherapy"),
        ("Transarterial ethanol ablation was done.", "ir_modality:chemical_ablation"),
        ("HAIC-FOLFOX was given.", "drug:systemic_chemotherapy"),
        ("Trans-hepatic arterial chemoembolization was done.", "ir_modality:haic"),
    ],
)
def test_what_only_looks_like_a_treatment(text, concept):
    assert concept not in evidence("", f"METHODS: {text}")


def test_an_aim_inside_the_background_counts_as_studied():
    text = "BACKGROUND: Nodules recur. We aimed to assess nivolumab after resection. METHODS: Forty people took part."
    assert evidence("", text)["immunotherapy:anti_pd1"] == 2


def test_an_acronym_of_other_words_is_not_the_treatment():
    enzyme = "METHODS: The converting enzyme (TACE) was measured in serum. RESULTS: TACE rose."
    assert "ir_modality:tace" not in evidence("", enzyme)
    other = "METHODS: The retinal flow area (RFA) was read twice. RESULTS: RFA fell in the liver cancer group."
    assert "ir_modality:rfa" not in evidence("", other)
    own = "METHODS: Radiofrequency ablation (RFA) was done. RESULTS: RFA was safe."
    assert len([m for m in mentions("", own) if m.concept == "ir_modality:rfa"]) >= 3
    assert "ir_modality:ire" not in evidence("", "RESULTS: We had to rewire the device; ire was provoked.")


@pytest.mark.parametrize(
    "words",
    [
        "DEB-TACE for large tumours",
        "drug-eluting beads transarterial chemoembolization",
        "transarterial chemoembolization with drug-eluting beads",
    ],
)
def test_beads_swallow_the_word_for_chemoembolization(words):
    assert "ir_modality:tace" not in evidence("", MADE.format(words))
    assert evidence("", MADE.format(words))["ir_modality:deb_tace"] == 2


def test_a_precise_name_swallows_the_general_one():
    found = evidence(
        "", "METHODS: Fibrolamellar hepatocellular carcinoma was treated by drug-eluting bead chemoembolization."
    )
    assert "ir_modality:tace" not in found
    assert "cancer_type:hcc" not in found
    assert found["ir_modality:deb_tace"] == 2
    assert found["cancer_type:other_primary"] == 2
    assert "ir_modality:ablation_nos" not in evidence("", "METHODS: Radiofrequency ablation was done.")


def test_terms_match_whole_words_only():
    assert "drug:targeted" not in evidence("", "METHODS: The presorafenibs were listed.")
    assert evidence("", "METHODS: Hepatomas were counted.")["cancer_type:hcc"] == 2


def test_positions_survive_letters_that_change_length_in_lower_case():
    title = "İİİ"
    found = [m for m in mentions(title, "METHODS: TACE was done.") if m.concept == "ir_modality:tace"]
    assert {m.start for m in found} == {f"{title}. METHODS: TACE was done.".index("TACE")}
    assert found[0].strength == 2


def test_a_heading_glued_to_the_sentence_before_does_not_hide_the_next():
    for methods in ("METHODS Approach and Results: We", "MethodsWe", "METHODS: We"):
        found = evidence("", f"BACKGROUND: Nivolumab is old.{methods} gave durvalumab.")
        assert (found["immunotherapy:anti_pd1"], found["immunotherapy:anti_pdl1"]) == (1, 2)


def test_concepts_cover_the_scheme_and_keep_their_order():
    names = set(load_taxonomy().names)
    by_keyword = {n for n in names if n.split(":")[0] in {"cancer_type", "ir_modality", "immunotherapy"}}
    assert by_keyword <= set(concepts())
    assert {c for c in concepts() if c.split(":")[0] in {"cancer_type", "ir_modality", "immunotherapy"}} <= names
    found = evidence("TACE and sorafenib for HCC", "Forty patients with liver tumours were treated.")
    assert list(found) == [concept for concept in concepts() if concept in found]
    assert load_lexicon().version == LEXICON_VERSION


def test_what_only_the_rules_read_gives_no_hints():
    text = "METHODS: Forty patients had conventional TACE."
    assert "sign:conventional" in {mention.concept for mention in mentions("", text)}
    assert not {name for name in (*concepts(), *evidence("", text)) if name.startswith("sign:")}


def test_notation_of_terms():
    assert re.fullmatch(translate("drug eluting bead"), "drug-eluting beads")
    assert re.fullmatch(translate("chemo-emboli*"), "chemoembolisation")
    assert re.fullmatch(translate("(liver|hepatic) .. metasta*"), "liver of a patient with metastases")
    assert not re.fullmatch(translate("(liver|hepatic) .. metasta*"), "liver. No metastases")
    assert re.fullmatch(translate("tumou?r"), "tumors")


def test_every_term_can_be_found_by_its_beginning():
    for index in (load_lexicon().any_case, load_lexicon().as_written):
        assert index["qqqq"] == ((), (), None)
    with pytest.raises(ValueError, match="begins with neither"):
        lexicon._beginnings(")x")
