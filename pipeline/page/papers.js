"use strict";

/* The papers of the map, decoded into typed arrays, and what is asked of them: filters, counts, order. No DOM here. */

const STEPS = 10000; // probabilities are whole numbers of this many
const UNKNOWN = 65535;

function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function unpack(text) {
  const stream = new Blob([decodeBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream);
}

/** A set of labels as two 32-bit masks, so that a test costs two operations. */
function maskOf(labels) {
  const mask = [0, 0];
  for (const label of labels) mask[label >> 5] |= 1 << (label & 31);
  return mask;
}

/** The place of the lowest bit that is set. */
function lowest(bits) {
  return 31 - Math.clz32(bits & -bits);
}

class Papers {
  /** `packed` is what pipeline.evidence_data.pack wrote, `scheme` what its scheme() did. */
  static async open(packed, scheme) {
    const numbers = await unpack(packed.probabilities).arrayBuffer();
    const papers = new Papers(packed, scheme, new Uint16Array(numbers));
    // Wanted only when a paper is opened, so the first picture does not wait for it.
    if (packed.reasons) papers.arrival = unpack(packed.reasons).json().then((reasons) => (papers.reasons = reasons));
    return papers;
  }

  constructor(packed, scheme, chances) {
    this.packed = packed;
    this.scheme = scheme;
    this.count = packed.count;
    this.chances = chances;
    this.reasons = []; // per paper, once `arrival` has come to pass
    this.arrival = Promise.resolve();
    this.labels = scheme.axes.flatMap((axis) => axis.labels.map((label) => ({ ...label, axis: axis.name })));
    this.labels.forEach((label, number) => (label.number = number));
    this.axes = new Map(scheme.axes.map((axis) => [axis.name, this.labels.filter((label) => label.axis === axis.name)]));
    this.years = Int16Array.from(packed.year);
    const bytes = decodeBase64(packed.labels);
    this.low = new Uint32Array(this.count);
    this.high = new Uint32Array(this.count);
    for (let i = 0, b = 0; i < this.count; i++, b += 7) {
      this.low[i] = bytes[b] | (bytes[b + 1] << 8) | (bytes[b + 2] << 16) | (bytes[b + 3] << 24);
      this.high[i] = bytes[b + 4] | (bytes[b + 5] << 8) | (bytes[b + 6] << 16);
    }
    this.lists = { flags: this.#lists(packed.flags), doubtful: this.#lists(packed.doubtful) };
    this.persons = this.#lists(packed.human);
    this.outside = new Set(packed.outside);
    this.foldedTexts = new Map();
    this.#byDate = this.#newestFirst();
  }

  #byDate;

  #lists(positions) {
    const found = new Map();
    for (const [name, places] of Object.entries(positions)) {
      for (const place of places) found.set(place, [...(found.get(place) ?? []), name]);
    }
    return found;
  }

  #newestFirst() {
    const order = Uint32Array.from({ length: this.count }, (_, i) => i);
    const { pmid } = this.packed;
    return order.sort((a, b) => this.years[b] - this.years[a] || pmid[b] - pmid[a] || a - b);
  }

  /* What a query asks (see compileQuery). */
  has(i, label) { return ((label < 32 ? this.low[i] : this.high[i]) >>> (label & 31)) & 1; }
  chance(i, label) {
    const steps = this.chances[i * this.labels.length + label];
    return steps === UNKNOWN ? NaN : steps / STEPS;
  }
  year(i) { return this.years[i]; }
  pmid(i) { return this.packed.pmid[i]; }
  id(i) { return this.packed.id[i] || String(this.packed.pmid[i]); }
  list(i, column) { return this.lists[column].get(i) ?? []; }
  human(i) { return this.persons.has(i); }
  inScope(i) { return !this.outside.has(i); }
  folded(i, field) {
    if (field === "abstract") return ""; // not in the page: a library of abstracts would not fit
    if (!this.foldedTexts.has(field)) {
      const source = field === "title" ? this.packed.title : this.packed.journals;
      this.foldedTexts.set(field, source.map((text) => ` ${fold(text)} `));
    }
    return this.foldedTexts.get(field)[field === "title" ? i : this.packed.journal[i]];
  }

  /* What the page shows. */
  title(i) { return this.packed.title[i]; }
  journal(i) { return this.packed.journals[this.packed.journal[i]]; }
  doi(i) { return this.packed.doi[i]; }
  person(i) { return this.persons.get(i)?.[0] ?? ""; }
  link(i) {
    if (this.pmid(i)) return `https://pubmed.ncbi.nlm.nih.gov/${this.pmid(i)}/`;
    return /^10\.\d+\//.test(this.doi(i)) ? `https://doi.org/${encodeURI(this.doi(i))}` : "";
  }
  given(i) { return this.labels.filter((label) => this.has(i, label.number)); }
  on(i, axis) { return this.axes.get(axis).filter((label) => this.has(i, label.number)); }
  /** The paper's least sure label, of `labels` or of all; a person's label counts as certain, no label as unknown. */
  weakest(i, labels = this.labels) {
    if (this.human(i)) return 1;
    let least = UNKNOWN;
    for (let n = 0, at = i * this.labels.length; n < labels.length; n++) {
      const { number } = labels[n];
      if (this.has(i, number)) least = Math.min(least, this.chances[at + number]);
    }
    return least === UNKNOWN ? NaN : least / STEPS;
  }

  /** Labels that count when a label needs probability `least`: masks as `low` and `high`; `members` is a cache. */
  counting(least) {
    if (this.#counting?.least !== least) this.#counting = { least, members: new Map(), ...this.#strong(least) };
    return this.#counting;
  }

  #counting = null;

  #strong(least) {
    const bound = Math.round(least * STEPS);
    if (!bound) return { low: this.low, high: this.high };
    const low = this.low.slice();
    const high = this.high.slice();
    for (let i = 0, at = 0; i < this.count; i++, at += this.labels.length) {
      if (this.persons.has(i)) continue;
      for (let bits = low[i]; bits; bits &= bits - 1) {
        const label = lowest(bits);
        if (this.chances[at + label] < bound) low[i] &= ~(1 << label);
      }
      for (let bits = high[i]; bits; bits &= bits - 1) {
        const label = lowest(bits);
        if (this.chances[at + 32 + label] < bound) high[i] &= ~(1 << label);
      }
    }
    return { low, high };
  }

  /** Positions of the papers that `keep` (a byte each) lets through, sorted by `key` ("year", "-year", …). */
  sorted(keep, key) {
    const chosen = this.#byDate.filter((i) => keep[i]);
    const backwards = key.startsWith("-");
    const field = key.replace("-", "");
    if (field === "year" && backwards) return chosen;
    const designs = this.axes.get("study_design");
    const value = {
      year: (i) => this.years[i],
      title: (i) => this.folded(i, "title"),
      journal: (i) => this.folded(i, "journal"),
      design: (i) => designs.findIndex(({ number }) => this.has(i, number)),
      chance: (i) => this.weakest(i),
    }[field];
    const values = new Array(this.count);
    for (const i of chosen) values[i] = value(i);
    const sign = backwards ? -1 : 1;
    // Stable: what is equal stays newest first. NaN (no label) sorts last either way.
    return chosen.sort((a, b) => {
      const [one, other] = [values[a], values[b]];
      if (one < other) return -sign;
      if (one > other) return sign;
      return Number(Number.isNaN(one)) - Number(Number.isNaN(other));
    });
  }
}

/* Dimensions of the grid. An entry has `key` (for the address), `short`, `full`, `group`, and is either a set of labels
 * (`mask`), the lack of them (`none`), or a span of years (`first`, `last`). */

function labelEntries(papers, axis, group = "") {
  return papers.axes.get(axis).map((label) => (
    { key: label.name, short: label.short, full: label.title, group, labels: [label], mask: maskOf([label.number]) }));
}

function lackOf(entries, short, full, group = "") {
  return { key: "none", short, full, group, labels: [], none: maskOf(entries.flatMap((one) => one.labels.map((l) => l.number))) };
}

function rowEntries(papers) {
  const groups = { rfa: "Ablation", tace: "Through the artery", brachytherapy: "Other" }; // where each begins
  const entries = labelEntries(papers, "ir_modality");
  let group = "";
  for (const entry of entries) entry.group = group = groups[entry.key] ?? group;
  return [...entries, lackOf(entries, "No procedure", "No interventional procedure", "Other")];
}

function systemicEntries(papers) {
  const combined = new Map(papers.axes.get("combination").map((label) => [label.name, label]));
  const together = (key, short, full, names) => {
    const labels = names.map((name) => combined.get(name));
    return { key, short, full, group: "Combined with it", labels, mask: maskOf(labels.map((l) => l.number)) };
  };
  const entries = [
    ...labelEntries(papers, "immunotherapy", "Immunotherapy"),
    together("targeted", "Targeted", "Targeted or antiangiogenic agent, given with the procedure",
      ["ir_immuno_targeted", "ir_targeted"]),
    together("chemo", "Chemo", "Systemic chemotherapy, given with the procedure", ["ir_chemo"]),
  ];
  return [...entries, lackOf(entries, "None", "None of these systemic treatments", "")];
}

function axisEntries(papers, axis) {
  const entries = labelEntries(papers, axis);
  return papers.outside.size ? [...entries, lackOf(entries, "Out of scope", "Out of scope")] : entries;
}

/** The last six years one by one, older ones in fives, the oldest together. */
function yearEntries(papers) {
  let latest = 0;
  let earliest = 9999;
  for (const year of papers.years) if (year) [latest, earliest] = [Math.max(latest, year), Math.min(earliest, year)];
  const entries = [];
  const span = (first, last, short) => ({
    key: first === last ? `${first}` : `${first}-${last}`, short, full: short, group: "", labels: [], first, last });
  if (latest) {
    let year = latest;
    for (; year > latest - 6 && year >= earliest; year--) entries.unshift(span(year, year, `${year}`));
    for (let fives = 0; fives < 4 && year >= earliest; fives++) {
      const first = Math.floor(year / 5) * 5;
      entries.unshift(span(first, year, first === year ? `${year}` : `${first}–${String(year).slice(2)}`));
      year = first - 1;
    }
    if (year >= earliest) entries.unshift(span(1, year, `to ${year}`));
  }
  if (papers.years.includes(0)) entries.push(span(0, 0, "No year"));
  return entries;
}

const COLUMNS = [
  ["systemic", "Systemic treatment", systemicEntries],
  ["cancer", "Cancer type", (papers) => axisEntries(papers, "cancer_type")],
  ["year", "Year", yearEntries],
  ["design", "Study design", (papers) => axisEntries(papers, "study_design")],
];

/** Whether paper i belongs to an entry, given the labels that count. */
function belongs(entry, papers, counting, i) {
  if (entry.mask) return (counting.low[i] & entry.mask[0]) !== 0 || (counting.high[i] & entry.mask[1]) !== 0;
  // A label too weak to count is not the lack of one.
  if (entry.none) return (papers.low[i] & entry.none[0]) === 0 && (papers.high[i] & entry.none[1]) === 0;
  return papers.years[i] >= entry.first && papers.years[i] <= entry.last;
}

/** The entries that each paper belongs to, end to end: those of paper i are `items[starts[i]]` to `items[starts[i + 1]]`. */
function membership(papers, entries, counting) {
  const known = counting.members.get(entries);
  if (known) return known;
  const starts = new Uint32Array(papers.count + 1);
  const items = [];
  for (let i = 0; i < papers.count; i++) {
    for (let e = 0; e < entries.length; e++) if (belongs(entries[e], papers, counting, i)) items.push(e);
    starts[i + 1] = items.length;
  }
  const found = { starts, items: Uint8Array.from(items) };
  counting.members.set(entries, found);
  return found;
}

/** What the filters leave, and what the grid counts.
 *
 * `asked`: `matches` (a query, compiled), `first`, `last` (years), `least` (probability), `chosen` (axis → Set of label
 * numbers). Gives `keep` (a byte per paper), `total`, `facets` (papers per label under all filters but its own axis'),
 * `cells` (papers per row, column and design; the last row and column are totals) and `perYear`. */
function survey(papers, rows, columns, asked) {
  const { count } = papers;
  const counting = papers.counting(asked.least);
  const designs = papers.axes.get("study_design").map((label) => label.number);
  const perDesign = designs.length + 1; // the last: no design that counts
  const wide = columns.length + 1;
  const cells = new Uint32Array((rows.length + 1) * wide * perDesign);
  const facets = new Uint32Array(papers.labels.length);
  const perYear = new Map();
  const filters = [...asked.chosen].map(([name, chosen]) => (
    { mask: maskOf(chosen), all: maskOf(papers.axes.get(name).map((label) => label.number)) }));
  const keep = new Uint8Array(count);
  const [inRow, inColumn] = [membership(papers, rows, counting), membership(papers, columns, counting)];
  const add = (r, c, design) => cells[(r * wide + c) * perDesign + design]++;
  let total = 0;
  for (let i = 0; i < count; i++) {
    const low = counting.low[i];
    const high = counting.high[i];
    let failed = null;
    let failures = 0;
    for (const filter of filters) {
      if (!(low & filter.mask[0]) && !(high & filter.mask[1])) {
        failed = filter;
        if (++failures > 1) break;
      }
    }
    if (failures > 1 || !asked.matches(i)) continue;
    const year = papers.years[i];
    if (!failures) perYear.set(year, (perYear.get(year) ?? 0) + 1);
    if ((asked.first && year < asked.first) || (asked.last && (year > asked.last || !year))) continue;
    // What fails on one axis alone still counts beside that axis' labels.
    for (let bits = failures ? low & failed.all[0] : low; bits; bits &= bits - 1) facets[lowest(bits)]++;
    for (let bits = failures ? high & failed.all[1] : high; bits; bits &= bits - 1) facets[32 + lowest(bits)]++;
    if (failures) continue;
    const [r0, r1, c0, c1] = [inRow.starts[i], inRow.starts[i + 1], inColumn.starts[i], inColumn.starts[i + 1]];
    if (r0 === r1 || c0 === c1) continue; // its only labels there are too weak to count
    keep[i] = 1;
    total++;
    let design = 0;
    while (design < designs.length && !(((designs[design] < 32 ? low : high) >>> (designs[design] & 31)) & 1)) design++;
    for (let r = r0; r < r1; r++) {
      for (let c = c0; c < c1; c++) add(inRow.items[r], inColumn.items[c], design);
      add(inRow.items[r], columns.length, design);
    }
    for (let c = c0; c < c1; c++) add(rows.length, inColumn.items[c], design);
    add(rows.length, columns.length, design);
  }
  return { keep, total, facets, cells, perYear, perDesign, counting };
}

/** Which of the kept papers stand in a cell; row or column null is the total. */
function inCell(papers, found, row, column) {
  return found.keep.map((kept, i) => Number(
    kept && (!row || belongs(row, papers, found.counting, i)) && (!column || belongs(column, papers, found.counting, i))));
}
