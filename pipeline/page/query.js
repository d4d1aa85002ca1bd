"use strict";

/* The search language of hepatag, as docs/queries.md gives it and pipeline/query.py reads it.
 *
 * parseQuery turns an expression into a tree, compileQuery a tree into a function of a paper's position.
 * tests/query_cases.json holds what both languages' implementations must agree on. */

const MAX_CHARACTERS = 10000;
const MAX_DEPTH = 50;
const MAX_WORDS = 5;
const CONNECTIVES = new Set(["and", "or", "not", "all", "since", "until", "in"]);
const FIELDS = ["text", "title", "journal", "pmid", "id", "doubtful"];
const QUOTES = /^["“”„]+|["“”„]+$/g;
const TOKEN =
  /\s*(?:(["“”„][^"“”„]*(["“”„]?))|([<>]=?|[≤≥])|([():])|(\.?[\p{L}\p{N}_](?:[\p{L}\p{N}_./*+'’‐‑–-]*[\p{L}\p{N}_*])?)|(\S))/uy;
const HINTS = {
  ",": "join terms with and, or", "&": "write and", "|": "write or", "!": "write not", "-": "write not",
  "=": "write >= with a probability, or : with a field", "'": 'put words in double quotes: "portal vein"',
};

/** An expression cannot be read; `start` and `end` are the place in it, from 0. */
class QueryError extends Error {
  constructor(message, start, end) {
    super(message);
    this.start = start;
    this.end = end;
  }
}

/** What two spellings of one name share: small letters a to z and digits. */
function nameKey(text) {
  return text.toLowerCase().replace(/[^a-z0-9]/g, "");
}

/** Text for phrase search: small letters, one space for whatever is neither letter nor digit. */
function fold(text) {
  let small = "";
  // Letter by letter, as pipeline.conditions.fold does: no rule of any language applies.
  if (/^[\x00-\x7f]*$/.test(text)) small = text.toLowerCase();
  else for (const one of text) small += String.fromCodePoint(one.toLowerCase().codePointAt(0));
  return small.replace(/[^\p{L}\p{N}]+/gu, " ").trim();
}

function tokenize(text) {
  const found = [];
  TOKEN.lastIndex = 0;
  for (let match; (match = TOKEN.exec(text)); ) {
    const [whole, phrase, closed, compare, sign, word, bad] = match;
    const value = phrase ?? compare ?? sign ?? word ?? bad;
    const start = match.index + whole.length - value.length;
    const kind = phrase ? "phrase" : compare ? "compare" : sign ? "sign" : word ? "word" : "bad";
    if (kind === "phrase" && !closed) {
      throw new QueryError(`Expected a closing quote (opened at character ${start + 1}).`, start, start + 1);
    }
    if (kind === "bad") {
      const hint = HINTS[value] ?? "words of a search stand in double quotes";
      throw new QueryError(
        `Expected a name or a bracket at character ${start + 1}, found “${value}”; ${hint}.`, start, start + value.length);
    }
    found.push({ kind, text: value, start, end: start + value.length, small: word ? value.toLowerCase() : "" });
  }
  const end = text.trimEnd().length;
  found.push({ kind: "end", text: "", start: end, end: end + 1, small: "" });
  return found;
}

/** How alike two keys are, 0 to 1: the share of letters that stand in order in both. */
function likeness(one, other) {
  let row = new Uint8Array(other.length + 1);
  for (const letter of one) {
    const next = new Uint8Array(other.length + 1);
    for (let j = 1; j <= other.length; j++) {
      next[j] = other[j - 1] === letter ? row[j - 1] + 1 : Math.max(row[j], next[j - 1]);
    }
    row = next;
  }
  return (2 * row[other.length]) / (one.length + other.length || 1);
}

/** Recursive descent over the tokens, one method per rule of the grammar. */
class QueryParser {
  /** `scheme` has `axes`, `vocabulary` (key → [shown, kind, labels, axis]) and `flags` (key → flag). */
  constructor(text, scheme) {
    this.tokens = tokenize(text);
    this.at = 0;
    this.depth = 0;
    this.notes = new Set();
    this.vocabulary = new Map(Object.entries(scheme.vocabulary));
    this.flags = new Map(Object.entries(scheme.flags));
    this.labels = scheme.axes.flatMap((axis) => axis.labels.map((label) => ({ ...label, axis: axis.name })));
    this.axes = scheme.axes.map((axis) => axis.name);
  }

  get next() {
    return this.tokens[this.at];
  }

  wrong(expected, hint = "", token = this.next) {
    const found = token.kind === "end" ? "the end" : `“${token.text.slice(0, 60)}”`;
    const message = `Expected ${expected} at character ${token.start + 1}, found ${found}`;
    return new QueryError(hint ? `${message}; ${hint}.` : `${message}.`, token.start, token.end);
  }

  query() {
    const everything = this.next.small === "all";
    if (everything) {
      this.at++;
      if (this.next.small === "and") {
        this.at++;
        if (this.next.kind === "end") throw this.wrong("a term after “and”");
      }
    }
    const tree = this.next.kind === "end" ? null : this.either();
    if (this.next.kind !== "end") {
      throw this.wrong("and, or, or the end", this.next.text === ")" ? "there is no bracket to close" : "");
    }
    return { tree, everything, notes: [...this.notes] };
  }

  either() {
    const parts = [this.both()];
    while (this.next.small === "or") {
      this.at++;
      parts.push(this.both());
    }
    return parts.length === 1 ? parts[0] : { kind: "some", parts };
  }

  both() {
    const parts = [this.one()];
    for (;;) {
      if (this.next.small === "and") this.at++;
      else if (this.next.small === "or" || !this.begins()) break;
      parts.push(this.one());
    }
    return parts.length === 1 ? parts[0] : { kind: "every", parts };
  }

  begins() {
    return this.next.kind === "word" || this.next.kind === "phrase" || this.next.text === "(";
  }

  one() {
    if (++this.depth > MAX_DEPTH) throw this.wrong(`at most ${MAX_DEPTH} brackets and “not” inside one another`);
    let node;
    if (this.next.small === "not") {
      this.at++;
      node = { kind: "not", part: this.one() };
    } else if (this.next.text === "(") {
      const opened = this.next;
      this.at++;
      node = this.either();
      if (this.next.text !== ")") throw this.wrong(`a closing bracket (opened at character ${opened.start + 1})`);
      this.at++;
    } else node = this.term();
    this.depth--;
    return node;
  }

  term() {
    const token = this.next;
    const what = "a label, an axis, or words in double quotes";
    if (token.kind === "phrase") return this.phrase(["title", "abstract"]);
    if (token.kind !== "word" || token.small === "and" || token.small === "or") throw this.wrong(what);
    if (token.small === "all") throw this.wrong(what, "“all” stands at the beginning only");
    if (["since", "until", "in"].includes(token.small)) return this.year();
    if (this.tokens[this.at + 1].text === ":") return this.field();
    if (token.small === "p" && this.tokens[this.at + 1].text === "(") return this.chance();
    const word = nameKey(token.text);
    if (this.flags.has(word) || ["doubtful", "human", "inscope"].includes(word)) {
      this.at++;
      if (word === "doubtful") return { kind: "holds", column: "doubtful", value: "" };
      if (word === "human" || word === "inscope") return { kind: word };
      return { kind: "holds", column: "flags", value: this.flags.get(word) };
    }
    const labels = this.name()[2];
    return this.next.kind === "compare" ? this.bound(labels) : { kind: "labels", labels };
  }

  /** The longest run of words that is a name; with `axis`, a name that has a label there. */
  name(axis = "") {
    const words = [];
    for (const token of this.tokens.slice(this.at, this.at + MAX_WORDS)) {
      if (token.kind !== "word" || (words.length && CONNECTIVES.has(token.small))) break;
      words.push(token.text);
    }
    for (let count = words.length; count; count--) {
      const found = this.vocabulary.get(nameKey(words.slice(0, count).join("")));
      if (!found || (axis && !found[2].some((label) => this.labels[label].axis === axis))) continue;
      this.at += count;
      if (found[1] === "drug") this.note(words.slice(0, count).join(" "), this.labels[found[2][0]]);
      return found;
    }
    throw this.unknown(axis);
  }

  note(drug, label) {
    this.notes.add(
      `${drug} is read as ${label.axis}:${label.name} (${label.title}), whichever drug; for the word itself write "${drug}".`);
  }

  unknown(axis) {
    const token = this.next;
    const what = axis ? `a label of ${axis}` : "the name of a label or an axis";
    if (token.kind !== "word") return this.wrong("the name of a label or an axis");
    const word = nameKey(token.text);
    const known = this.vocabulary.get(word);
    if (axis && known) {
      const means = known[2].slice(0, 4).map((label) => `${this.labels[label].axis}:${this.labels[label].name}`);
      return this.wrong(what, `${known[0]} means ${means.join(", ")}`);
    }
    if (["year", "date", "published"].includes(word)) {
      return this.wrong("the name of a label or an axis", "years are asked for so: since 2022, until 2024, in 2023");
    }
    if (/^\d+$/.test(token.text)) {
      return this.wrong("the name of a label or an axis", "a PMID is asked for so: pmid:123; a year so: in 2023");
    }
    const parts = token.text.split(/[-+/‐‑–—]/);
    let close = this.nearest(word);
    if (parts.length > 1 && parts.every((part) => this.vocabulary.has(nameKey(part)))) close = [parts.join(" and ")];
    const guess = close.length ? `did you mean ${close.join(", or ")}? Or, ` : "";
    return this.wrong(what, `${guess}to search titles, put it in quotes: "${token.text}"`);
  }

  nearest(word) {
    const scored = [...this.vocabulary].map(([key, name]) => [likeness(word, key), name[0]]);
    const close = scored.filter(([score]) => score >= 0.7).sort((one, other) => other[0] - one[0]);
    return [...new Set(close.map(([, shown]) => shown))].slice(0, 3);
  }

  field() {
    const token = this.next;
    this.at += 2;
    const name = token.small;
    if (name === "text") return this.phrase(["title", "abstract"]);
    if (name === "title" || name === "journal") return this.phrase([name]);
    if (name === "pmid") return { kind: "equal", column: "pmid", value: this.number("a PMID", /^[1-9]\d{0,14}$/) };
    if (name === "id") {
      if (this.next.kind !== "word" && this.next.kind !== "phrase") {
        throw this.wrong("an identifier, in quotes where it holds spaces or signs");
      }
      return { kind: "equal", column: "id", value: this.tokens[this.at++].text.replace(QUOTES, "") };
    }
    if (name === "doubtful") return { kind: "holds", column: "doubtful", value: this.axis() };
    const found = this.vocabulary.get(nameKey(token.text));
    if (found?.[1] === "axis") {
      const labels = this.name(found[3])[2].filter((label) => this.labels[label].axis === found[3]);
      return this.next.kind === "compare" ? this.bound(labels) : { kind: "labels", labels };
    }
    throw this.wrong(`a field before “:” (${FIELDS.join(", ")}; ${this.axes.join(", ")})`, "", token);
  }

  axis() {
    const found = this.next.kind === "word" ? this.vocabulary.get(nameKey(this.next.text)) : null;
    if (!found?.[3]) throw this.wrong(`an axis (${this.axes.join(", ")})`);
    this.at++;
    return found[3];
  }

  phrase(fields) {
    const token = this.next;
    if (token.kind !== "word" && token.kind !== "phrase") throw this.wrong("words in double quotes");
    const text = token.text.replace(QUOTES, "").trim();
    const words = fold(text);
    if (!words) throw this.wrong("a word or a number to look for", "", token);
    this.at++;
    return { kind: "phrase", fields, needle: text.endsWith("*") ? ` ${words}` : ` ${words} ` };
  }

  chance() {
    this.at += 2;
    const labels = this.name()[2];
    if (this.next.text !== ")") throw this.wrong("a closing bracket");
    this.at++;
    return this.bound(labels);
  }

  bound(labels) {
    if (this.next.kind !== "compare") throw this.wrong(">=, >, <= or <");
    const compare = { "≥": ">=", "≤": "<=" }[this.next.text] ?? this.next.text;
    this.at++;
    if (!/^(?:0|1|0?\.\d+|[01]\.\d*)$/.test(this.next.text) || Number(this.next.text) > 1) {
      throw this.wrong("a probability from 0 to 1", "write 0.9 for 90 %");
    }
    return { kind: "probability", labels, compare, bound: Number(this.tokens[this.at++].text) };
  }

  year() {
    const word = this.tokens[this.at++].small;
    const year = this.number("a year of four digits", /^\d{4}$/);
    return { kind: "year", first: word === "until" ? -Infinity : year, last: word === "since" ? Infinity : year };
  }

  number(what, pattern) {
    if (this.next.kind !== "word" || !pattern.test(this.next.text)) throw this.wrong(what);
    return Number(this.tokens[this.at++].text);
  }
}

/** Reads an expression: {tree (null: everything), everything, notes}. Throws QueryError. */
function parseQuery(text, scheme) {
  if (text.length > MAX_CHARACTERS) {
    throw new QueryError(
      `Expected a query of at most ${MAX_CHARACTERS} characters, found ${text.length}; shorten it.`,
      MAX_CHARACTERS, MAX_CHARACTERS + 1);
  }
  return new QueryParser(text, scheme).query();
}

/** A parsed query as a function of a paper's position.
 *
 * `papers` answers for a position: has(i, label), chance(i, label) (NaN: none), folded(i, field) (" words "),
 * year(i) (0: none), pmid(i), id(i), list(i, "flags" or "doubtful"), human(i), inScope(i). */
function compileQuery(query, papers) {
  const meets = query.tree ? compileNode(query.tree, papers) : () => true;
  return query.everything ? meets : (i) => papers.inScope(i) && meets(i);
}

function compileNode(node, papers) {
  switch (node.kind) {
    case "not": {
      const part = compileNode(node.part, papers);
      return (i) => !part(i);
    }
    case "every": {
      const parts = node.parts.map((part) => compileNode(part, papers));
      return (i) => parts.every((part) => part(i));
    }
    case "some": {
      const parts = node.parts.map((part) => compileNode(part, papers));
      return (i) => parts.some((part) => part(i));
    }
    case "labels":
      return (i) => node.labels.some((label) => papers.has(i, label));
    case "probability": {
      // Single precision on both sides, as stored: a stored 0.9 is at least 0.9.
      const bound = Math.fround(node.bound);
      const holds = {
        ">=": (value) => value >= bound, ">": (value) => value > bound,
        "<=": (value) => value <= bound, "<": (value) => value < bound,
      }[node.compare];
      return (i) => {
        let greatest = NaN;
        for (const label of node.labels) {
          const value = papers.chance(i, label);
          if (!(value <= greatest) && !Number.isNaN(value)) greatest = value;
        }
        return holds(Math.fround(greatest));
      };
    }
    case "phrase":
      return (i) => node.fields.some((field) => papers.folded(i, field).includes(node.needle));
    case "year":
      return (i) => papers.year(i) > 0 && papers.year(i) >= node.first && papers.year(i) <= node.last;
    case "equal":
      return (i) => papers[node.column](i) === node.value;
    case "holds":
      return (i) => {
        const found = papers.list(i, node.column);
        return node.value ? found.includes(node.value) : found.length > 0;
      };
    case "human":
      return (i) => papers.human(i);
    case "inscope":
      return (i) => papers.inScope(i);
    default:
      throw new Error(node.kind);
  }
}
