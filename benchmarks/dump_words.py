"""The words of our made-up dumps: topics, sentence templates with open places, names, places and journals."""

# What a record can be about, and how often (in thousands of records); the share of liver cancer is a parameter.
# Per topic: what is studied, in whom, what is done, what is measured, MeSH headings.
TOPICS: dict[str, tuple[int, list[str], list[str], list[str], list[str], list[str]]] = {}


def _topic(name: str, weight: int, *lists: str) -> None:
    TOPICS[name] = (weight, *([one.strip() for one in text.split("|")] for text in lists))  # type: ignore[assignment]


_topic(
    "heart",
    130,
    "chronic heart failure|atrial fibrillation|aortic stenosis|unstable angina|stent thrombosis|arterial hypertension|"
    "cardiac amyloidosis|long QT syndrome|pulmonary embolism|peripheral arterial occlusion|mitral regurgitation",
    "patients with a reduced ejection fraction|men over sixty|pregnant women|survivors of a first infarction|"
    "athletes of national teams|carriers of a pacing device|adults seen in emergency rooms",
    "cryoballoon isolation of the veins|a beta blocker at bedtime|transfemoral valve replacement|dual platelet "
    "inhibition|remote monitoring of weight|high-intensity statins|renal denervation|exercise in groups",
    "left ventricular volume|the six-minute walk|troponin release|readmission within thirty days|systolic pressure|"
    "natriuretic peptide|stroke|graft patency|quality of sleep",
    "Heart Failure|Atrial Fibrillation|Hypertension|Myocardial Infarction|Stents|Anticoagulants|Echocardiography",
)
_topic(
    "brain",
    120,
    "multiple sclerosis|migraine with aura|Parkinson disease|focal epilepsy|mild cognitive impairment|spinal injury|"
    "amyotrophic lateral sclerosis|post-traumatic stress|ischaemic stroke|restless legs|neuropathic pain",
    "outpatients of a memory clinic|school children|bilingual adults|veterans|twins reared apart|shift workers|"
    "residents of nursing homes|right-handed volunteers",
    "deep stimulation of the subthalamic nucleus|cognitive therapy by telephone|a ketogenic diet|levodopa gel|"
    "thrombectomy after six hours|transcranial pulses|a monoclonal antibody against amyloid|mirror training",
    "gait speed|seizure count|cortical thickness|reaction time|recall of word lists|disability at two years|"
    "the blood oxygen signal|spindle density|grip force",
    "Multiple Sclerosis|Epilepsy|Stroke|Cognition Disorders|Magnetic Resonance Imaging|Parkinson Disease|Memory",
)
_topic(
    "germs",
    110,
    "drug-resistant tuberculosis|falciparum malaria|urinary infection|sepsis of the newborn|dengue fever|seasonal "
    "influenza|<i>Clostridioides difficile</i> colitis|HIV infection|cutaneous leishmaniasis|otitis media",
    "travellers returning from the tropics|children under five|hospital staff|seronegative partners|pilgrims|"
    "recipients of a kidney graft|dairy farmers|people in custody",
    "a two-dose vaccine|bed nets treated twice|shorter courses of rifampicin|rapid antigen cards|hand rub audits|"
    "phage cocktails|mass azithromycin|vaginal rings",
    "time to negative culture|parasite density|antibody titre|days on a ventilator|resistance genes|hospital stay|"
    "vaccine uptake|the rate of relapse|viral load",
    "Tuberculosis|Malaria|Anti-Bacterial Agents|Vaccination|HIV Infections|Drug Resistance|Influenza, Human",
)
_topic(
    "plants",
    90,
    "salt stress in <i>Oryza sativa</i>|root hair growth|powdery mildew of wheat|nitrogen fixation in lupins|wood "
    "formation in poplar|flowering time|pollen dormancy|iron uptake by maize|seed coat mucilage",
    "seedlings grown in sand|near-isogenic lines|field plots on clay|mutants without the transporter|wild accessions|"
    "grafted trees|greenhouse stands",
    "silencing of the bHLH factor|late irrigation|a biochar layer|inoculation with mycorrhiza|grafting on old stock|"
    "ultraviolet light|foliar zinc|crop rotation with beans",
    "grain yield|stomatal conductance|proline content|leaf area|anthocyanin colour|lignin composition|biomass|"
    "transcript abundance|germination at low temperature",
    "Oryza|Plant Roots|Gene Expression Regulation, Plant|Soil|Photosynthesis|Droughts|Seeds|Nitrogen",
)
_topic(
    "matter",
    110,
    "perovskite films|hydrogels of alginate|lithium anodes|graphene ribbons|zeolite catalysts|quantum dots|spider "
    "silk|porous frameworks|liquid crystals|titanium implants|fluorescent probes",
    "thin layers on glass|powders milled for two hours|single crystals|aqueous suspensions|electrospun fibres|"
    "samples aged at 60 °C|colloids of equal size",
    "annealing in argon|doping with cerium|laser patterning|a sol-gel route|surface silanisation|freeze casting|"
    "pulsed electrodeposition|microfluidic mixing",
    "band gap|Young modulus|discharge capacity|quantum yield|contact angle|pore volume|turnover frequency|"
    "thermal conductivity|fatigue life",
    "Nanoparticles|Biocompatible Materials|Hydrogels|Catalysis|Electrodes|Fluorescent Dyes|Surface Properties",
)
_topic(
    "genes",
    120,
    "alternative splicing of <i>NRX3</i>|telomere attrition|X inactivation|chromatin loops|ribosome stalling|copy "
    "number variants|autophagy|zebrafish fin regrowth|mitochondrial heteroplasmy|yeast ageing|CRISPR off-target cuts",
    "three-generation families|induced stem cells|knock-in mice|budding yeast|biobank participants|fly lines|"
    "archived blood spots|worms fed on RNA",
    "long-read sequencing|a degron tag|base editing|single-cell multiomics|Mendelian randomisation|ribosome profiling|"
    "optical mapping|proximity labelling",
    "allele frequency|read depth|growth at 37 °C|polygenic scores|transcription bursts|methylation age|lifespan|"
    "protein turnover|binding affinity (K<sub>d</sub>)",
    "Mutation|Genome-Wide Association Study|Chromatin|RNA Splicing|Gene Editing|Polymorphism, Single Nucleotide",
)
_topic(
    "society",
    120,
    "burnout among nurses|school meals|e-cigarette use|loneliness in old age|gender in authorship|medical debt|"
    "informal care|suburban cycling|health literacy|vaccine hesitancy|food deserts|remote consultation",
    "first-year students|migrant workers|general practitioners|tenants of social housing|single parents|pharmacists|"
    "members of two sickness funds|rural midwives",
    "a sugar levy|peer counselling|text reminders|an electronic decision aid|cash transfers|simulation training|"
    "walking groups|plain packages",
    "self-rated health|days of absence|the Gini index|consultation time|trust in institutions|costs per life year|"
    "daily steps|intention to leave|knowledge scores",
    "Health Policy|Socioeconomic Factors|Surveys and Questionnaires|Nurses|Students|Rural Population|Health Literacy",
)
_topic(
    "bones and teeth",
    90,
    "distal radius fracture|knee osteoarthritis|adolescent scoliosis|peri-implantitis|rotator cuff tears|early "
    "childhood caries|osteoporosis after menopause|temporomandibular pain|ankle sprain|gingival recession",
    "football players|women with low bone density|dental students|revision cases|children in fluoridated towns|"
    "amputees|patients with a single crown",
    "arthroscopic repair|zirconia abutments|eccentric loading|injection of platelets|clear aligners|zoledronate once a "
    "year|robot-guided screws|glass ionomer sealing",
    "range of motion|marginal bone level|plaque index|return to sport|cement leakage|pain on a visual scale|union rate|"
    "torque at removal|chewing force",
    "Fractures, Bone|Osteoarthritis, Knee|Dental Implants|Osteoporosis|Dental Caries|Arthroscopy|Range of Motion",
)
_topic(
    "metabolism",
    90,
    "type 2 diabetes|gestational obesity|vitamin D deficiency|gout|thyroid nodules|phenylketonuria|polycystic ovaries|"
    "hypoglycaemia at night|short stature|insulin resistance",
    "adolescents on a pump|Pima families|newly diagnosed adults|mothers after a large baby|vegans|night nurses|"
    "subjects with prediabetes",
    "an incretin agonist|time-restricted meals|continuous sensing|bariatric bypass|metformin at conception|a "
    "low-purine diet|oral semaglutide|fortified bread",
    "HbA<sub>1c</sub>|waist girth|fasting insulin|time in range|uric acid|birth weight|bone age|energy intake",
    "Diabetes Mellitus, Type 2|Obesity|Insulin|Vitamin D|Thyroid Gland|Blood Glucose|Body Mass Index",
)
_topic(
    "other cancers",
    75,
    "breast cancer with nodal spread|non-small-cell lung carcinoma|early prostate cancer|cutaneous melanoma|acute "
    "myeloid leukaemia|ovarian carcinoma|glioblastoma|head and neck tumours|follicular lymphoma|rectal cancer",
    "women under forty|never-smokers|patients in second remission|carriers of BRCA2|frail elders|children in trials|"
    "men under surveillance",
    "checkpoint blockade before surgery|a shorter course of radiation|CAR T cells|liquid biopsy|an aromatase inhibitor|"
    "sentinel node mapping|proton beams|weekly paclitaxel",
    "progression-free survival|complete remission|tumour mutational burden|local recurrence|grade 3 toxicity|margin "
    "status|circulating DNA|metastasis-free survival",
    "Breast Neoplasms|Lung Neoplasms|Prostatic Neoplasms|Melanoma|Neoplasm Metastasis|Antineoplastic Agents",
)
_topic(
    "benign liver",
    22,
    "chronic hepatitis B|alcoholic cirrhosis|steatohepatitis|primary biliary cholangitis|drug-induced hepatocellular "
    "injury|acute liver failure|hepatic encephalopathy|portal vein thrombosis|autoimmune hepatitis",
    "candidates for a graft|people who inject drugs|obese teenagers|drinkers after detoxification|rats given "
    "paracetamol|mothers with a high viral load",
    "tenofovir alafenamide|weight loss of ten per cent|rifaximin|albumin infusion|obeticholic acid|transient "
    "elastography|faecal transplantation|steroids for a month",
    "fibrosis stage|the MELD score|bilirubin|surface antigen loss|portal pressure|hepatic fat|ascites|lesion size|"
    "resection margins|transaminases",
    "Liver Cirrhosis|Hepatitis B, Chronic|Fatty Liver|Liver Failure, Acute|Liver Transplantation",
)
_topic(
    "liver cancer", 0,
    "hepatocellular carcinoma|unresectable hepatocellular carcinoma|intrahepatic cholangiocarcinoma|colorectal liver "
    "metastases|hepatoblastoma|HCC with portal invasion|neuroendocrine metastases to the liver|small hepatic tumours|"
    "recurrent HCC after transplantation|perihilar cholangiocarcinoma",
    "Child-Pugh A patients|candidates for downstaging|carriers of hepatitis B|patients outside the Milan criteria|"
    "rabbits with VX2 tumours|patients with up to three nodules|men with bilobar disease",
    "drug-eluting bead chemoembolization|conventional TACE|radioembolization with <sup>90</sup>Y|microwave ablation|"
    "atezolizumab plus bevacizumab|hepatic arterial infusion of FOLFOX|irreversible electroporation|lenvatinib with "
    "pembrolizumab|stereotactic radiotherapy|liver resection",
    "objective response by mRECIST|time to progression|overall survival|alpha-fetoprotein|complete necrosis|local "
    "tumour progression|liver failure after treatment|tumour absorbed dose",
    "Carcinoma, Hepatocellular|Liver Neoplasms|Chemoembolization, Therapeutic|Cholangiocarcinoma|Catheter Ablation",
)  # fmt: skip

SENTENCES = [
    "{Open}, {what} {burden}.",
    "{what_c} {burden}, yet {gap}.",
    "{gap_c}, above all in {who}.",
    "We {studied} {deed} in {n} {who} with {what}.",
    "{design_c} of {deed} was carried out at {site} between {year} and {year2}.",
    "{n} {who} (mean age {age}.{d} years, {pct}% women) were {given} {deed} or {deed2}.",
    "The primary outcome was {out}; secondary ones were {out2} and {out3}.",
    "{out_c} was {measured} at baseline and after {small} {unit}.",
    "{stat_c} were used, and missing values were {missing}.",
    "{out_c} {rose} from {age}.{d} to {pct}.{d2} (95% CI {lo}.{d}–{hi}.{d2}; <i>P</i> = 0.0{pct}).",
    "Compared with {deed2}, {deed} {changed} {out} by {pct}.{d}% (P &lt; 0.0{d2}{d}).",
    "No difference was found in {out2} (odds ratio {d}.{pct}, p={zero}.{age}).",
    "{out_c} and {out2} {correlated} (r = 0.{pct}), {adv} {who}.",
    "Of {n} {who}, {age} ({pct}%) {event} within {small} {unit}.",
    "In a multivariable model, {factor} and {factor2} {predicted} {out} (HR {d}.{pct}; {lo}.{d2} to {hi}.{d}).",
    "Adverse events of {deed} were {mild}: {ae} in {age}, {ae2} in {small}.",
    "Sensitivity was {pct}.{d}% and specificity {pct2}.{d2}% at a cut-off of {age} {scale}.",
    "{factor_c} {adv} {changed} {out3}, {contrast} {factor2} {didnot}.",
    "{deed_c} {may} {goal} in {who} with {what}.",
    "These {findings} {support} {deed} {adv} where {out} matters.",
    "{further_c} should {learn} whether {deed2} {may} change {out2}.",
    "{small_c} {unit} later, {out} had {rose} in {pct} of {n} {who}.",
    "A total of {n} samples from {site} were {handled} and {out} was {measured} by {method}.",
    "{method_c} {showed} that {factor} {rose} with {out}, {contrast} {out2} {stayed}.",
    "The interplay of {factor} with {what} {gap2}.",
]
PASSING = [
    "Ultrasound of the liver showed no metastasis in {n} {who}.",
    "Dose-limiting hepatic toxicity was seen in {small}; two tumours recurred.",
    "{small_c} {who} had distant metastases, mostly in bone and liver, after {age} {unit}.",
]
_LISTS = {
    "Open": "Worldwide|In the last decade|Despite many trials|In high-income countries|Since the first report|For most "
    "clinicians|Across all ages|Outside of large centres|In recent guidelines|As a rule",
    "burden": "remains hard to treat|is a growing burden|takes a heavy toll|often goes unnoticed|is poorly understood|"
    "has no agreed definition|varies between regions|is costly for health systems|attracts much interest|causes "
    "lasting disability|is seen ever more often|lacks a reliable marker",
    "gap": "little is known about its course|evidence is scarce|earlier reports disagree|the mechanism is unclear|"
    "long-term data are missing|most studies were small|guidance differs from country to country|no trial has asked "
    "why|models explain a part of it only",
    "gap2": "has rarely been looked at|is a matter of debate|was studied next|has consequences for practice|calls for "
    "better models|was beyond our scope",
    "studied": "compared|evaluated|examined|set out to measure|reviewed the results of|modelled|tested|report on|"
    "explored|re-examined|followed up",
    "design": "a randomised trial|a prospective cohort|a retrospective review|a cross-over study|a survey|a nested "
    "case-control study|a pilot|an open-label extension|a secondary analysis|a network meta-analysis|an in vitro "
    "series|a factorial experiment",
    "site": "three tertiary hospitals|a single centre|the national registry|two universities|forty practices|the "
    "regional laboratory|an island community|nine field stations|a core facility|the eastern provinces",
    "given": "assigned to|offered|exposed to|matched for|asked to choose between|observed under|divided into groups of",
    "measured": "recorded|assessed by two readers|computed|determined in triplicate|self-reported|scored blindly|"
    "estimated by regression|read from charts|quantified",
    "unit": "weeks|months|days|cycles|hours|visits|years|seasons|sessions|passages",
    "stat": "mixed models|Cox regression|Kaplan-Meier curves|propensity scores|generalised estimating equations|"
    "random forests|t tests and ANOVA|Bayesian hierarchies|bootstrapped intervals|chi-squared tests",
    "missing": "imputed|left out|carried forward|rare|treated as failures|modelled jointly|checked by hand",
    "rose": "rose|fell|improved|declined|doubled|shifted|worsened|increased|dropped|recovered|drifted",
    "changed": "lowered|raised|shortened|delayed|improved|hardly altered|reduced|prolonged|stabilised|impaired",
    "correlated": "were correlated|were unrelated|moved together|showed an inverse relation|agreed moderately",
    "adv": "particularly among|even in|but not in|most clearly in|irrespective of|consistently across|also for",
    "event": "dropped out|reached the endpoint|had an event|needed a second procedure|were lost to follow-up|responded|"
    "improved by one grade|were admitted again|completed all visits",
    "factor": "older age|smoking|a high baseline value|body mass index|the presence of comorbidity|temperature|"
    "concentration|educational level|sex|time since onset|ambient humidity|genotype|the number of visits|pH",
    "predicted": "predicted|were associated with|independently determined|explained|did not influence|modified",
    "mild": "mild|transient|rare|as expected|mostly of grade 1 or 2|more frequent than before|well tolerated",
    "ae": "headache|nausea|fatigue|rash|a local haematoma|diarrhoea|fever|dizziness|back pain|cough|neutropenia",
    "scale": "points|ng/mL|mm|mg/dL|per mille|μmol/L|units|kPa|Hz|mV",
    "contrast": "whereas|although|while|and yet|so that|even though",
    "didnot": "did not|had no effect|was neutral|gave mixed results|acted in the opposite way",
    "may": "may|might|can|seems to|could|is likely to|appears to|is able to",
    "goal": "help|be considered|be safe|offer an alternative|improve the outlook|reduce cost|guide decisions|be a "
    "first step|slow the course",
    "findings": "findings|results|data|observations|figures|estimates|trends",
    "support": "support|argue against|favour|encourage|cast doubt on|justify|add to what is known of",
    "further": "larger trials|further work|long-term follow-up|an independent cohort|mechanistic studies|registries",
    "learn": "clarify|show|confirm|test|ask|determine|establish",
    "handled": "stored at −80 °C|pooled|sequenced|stained|read twice|centrifuged|anonymised|weighed|thawed",
    "method": "mass spectrometry|flow cytometry|ELISA|<i>in situ</i> hybridisation|computed tomography|interviews|"
    "Western blot|spectroscopy|qPCR|diffusion imaging|chromatography|finite elements|a validated score",
    "showed": "showed|suggested|confirmed|revealed|indicated|gave no hint|made it plain",
    "stayed": "stayed the same|was constant|could not be read|followed later|was lost|remained within limits",
}
WORDS = {name: text.split("|") for name, text in _LISTS.items()}
NAMES = [
    "Abara",
    "Adler",
    "Bekele",
    "Berg",
    "Castro",
    "Chen",
    "Costa",
    "Dahl",
    "Devi",
    "Endo",
    "Eriksen",
    "Fabre",
    "Farouk",
    "Garcia",
    "Gruber",
    "Haddad",
    "Horvat",
    "Ito",
    "Ivanova",
    "Jansen",
    "Jung",
    "Kaya",
    "Keller",
    "Kim",
    "Kovacs",
    "Kumar",
    "Lang",
    "Lee",
    "Lopez",
    "Maas",
    "Mbeki",
    "Meyer",
    "Moreau",
    "Nakamura",
    "Ngo",
    "Novak",
    "Okafor",
    "Olsen",
    "Park",
    "Pereira",
    "Petrov",
    "Quist",
    "Ramos",
    "Rossi",
    "Sato",
    "Schmidt",
    "Silva",
    "Singh",
    "Suzuki",
    "Tanaka",
    "Tran",
    "Udo",
    "Urban",
    "Vega",
    "Virtanen",
    "Wang",
    "Weber",
    "Xu",
    "Yamada",
    "Yilmaz",
    "Zhang",
    "Zhou",
    "Zimmer",
    "Ødegård",
    "Šimić",
    "Łukasz",
    "Gómez",
    "Çelik",
    "Nørgaard",
    "Brânză",
    "Ñáñez",
]
GIVEN = [
    "Ada",
    "Amir",
    "Anna",
    "Ben",
    "Bo",
    "Carla",
    "Chi",
    "Dag",
    "Dina",
    "Elif",
    "Emil",
    "Eva",
    "Femi",
    "Finn",
    "Gina",
    "Hana",
    "Hugo",
    "Ines",
    "Ivo",
    "Jana",
    "Jun",
    "Kai",
    "Kim",
    "Lara",
    "Leo",
    "Lin",
    "Mai",
    "Marc",
    "Mia",
    "Nam",
    "Nina",
    "Noor",
    "Olaf",
    "Otto",
    "Pia",
    "Raj",
    "Rosa",
    "Sam",
    "Sara",
    "Tao",
    "Tim",
    "Uma",
    "Vera",
    "Wei",
    "Xin",
    "Yara",
    "Yi",
    "Zoe",
    "José",
    "Zoë",
    "Anaïs",
]
DEPARTMENTS = [
    "Department of Medicine",
    "Division of Biostatistics",
    "Institute of Physiology",
    "School of Public Health",
    "Department of Radiology",
    "Faculty of Engineering",
    "Laboratory of Molecular Biology",
    "Department of Surgery",
    "Centre for Materials",
    "Unit of Epidemiology",
    "Department of Psychology",
    "Graduate School of Agriculture",
    "Clinic for Children",
]
PLACES = [
    ("Northbridge", "UK"), ("Haverlund", "Denmark"), ("São Telmo", "Brazil"), ("Lakeview, OH 44000", "USA"),
    ("Xinhe 300200", "China"), ("Kitayama 560-0001", "Japan"), ("Altenau", "Germany"), ("Villeneuve", "France"),
    ("Chennapur", "India"), ("Port Ellen, ON", "Canada"), ("Riverton, VIC", "Australia"), ("Sanjeong", "Republic of "
    "Korea"), ("Montalba", "Italy"), ("Valdeluz", "Spain"), ("Umzini", "South Africa"), ("Karadere", "Turkey"),
]  # fmt: skip
JOURNALS = [
    (f"{kind} {of} {field_}", f"{short} {field_.split()[0][:6]}", country)
    for kind, short in (("Annals", "Ann"), ("Journal", "J"), ("Archives", "Arch"), ("International review", "Int Rev"))
    for of in ("of",)
    for field_, country in (
        ("imagined medicine", "England"), ("invented surgery", "United States"), ("made-up chemistry", "Netherlands"),
        ("fictive botany", "Germany"), ("supposed neurology", "Switzerland"), ("assumed genetics", "England"),
        ("notional public health", "Japan"), ("unreal cardiology", "Italy"), ("pretended dentistry", "Brazil"),
        ("would-be oncology", "United States"), ("feigned materials", "China"), ("mock hepatology", "Korea (South)"),
    )
]  # fmt: skip
SUBSTANCES = [
    "Insulin",
    "Water",
    "Biomarkers",
    "Glucose",
    "Antibodies, Monoclonal",
    "Cytokines",
    "Oxygen",
    "Nitric Oxide",
    "Anti-Bacterial Agents",
    "Calcium",
    "RNA, Messenger",
    "Lipids",
    "Metformin",
    "Graphite",
    "Iron",
    "DNA",
    "Dopamine",
    "Hydrogels",
    "Zinc",
    "Prednisolone",
]
CHECK_TAGS = [
    "Humans",
    "Male",
    "Female",
    "Adult",
    "Aged",
    "Animals",
    "Middle Aged",
    "Mice",
    "Child",
    "Adolescent",
    "Retrospective Studies",
]
QUALIFIERS = [
    "therapy",
    "drug effects",
    "metabolism",
    "epidemiology",
    "diagnosis",
    "genetics",
    "methods",
    "physiology",
    "etiology",
]
TYPES = [
    ("D016428", "Journal Article"), ("D016454", "Review"), ("D016449", "Randomized Controlled Trial"),
    ("D002363", "Case Reports"), ("D013485", "Research Support, Non-U.S. Gov't"), ("D016422", "Letter"),
    ("D017418", "Meta-Analysis"), ("D016448", "Multicenter Study"),
]  # fmt: skip
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
PARTS = ["BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"]
