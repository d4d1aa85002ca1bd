"use strict";

/* The page at work: what the reader asks for, kept in the address, and drawn anew when it changes. */

const $ = (id) => document.getElementById(id);

/** What the reader asks for. `cell` is [row key, column key], "all" for a total. */
const NOTHING = { by: "systemic", q: "", from: 0, to: 0, least: 0, cell: null, sort: "-year", page: 1 };
const SORTS = new Set(PAPER_COLUMNS.flatMap(([key]) => (key ? [key, `-${key}`] : [])));

class Page {
  constructor(about, papers) {
    Object.assign(this, { about, papers });
    this.asked = { ...NOTHING, chosen: new Map() };
    this.rows = rowEntries(papers);
    this.grid = new Grid($("grid"), $("hint"), papers, (row, column) => this.pick(row, column));
    this.query = { tree: null, everything: true, notes: [] };
    this.fixedParts();
    this.wire();
    this.read();
  }

  fixedParts() {
    const { about, papers } = this;
    const years = papers.packed.year.filter(Boolean);
    const span = years.length ? `, ${years.reduce((a, b) => Math.min(a, b))} to ${years.reduce((a, b) => Math.max(a, b))}` : "";
    $("lead").textContent = `${papersWord(papers.count)}${span}${about.where ? `, chosen by: ${about.where}` : ""}`;
    $("banner").replaceChildren(...banner(about, papers));
    $("foot").textContent = `Made by hepatag ${about.hepatag}. This file holds all its data, loads nothing and sends nothing.`;
    $("legend").replaceChildren(...legend(papers));
    $("axes").replaceChildren(...axisLists(papers, (axis, label, on) => {
      const chosen = new Set(this.asked.chosen.get(axis));
      if (on) chosen.add(label);
      else chosen.delete(label);
      this.choose(axis, chosen);
    }));
    $("columns").append(...COLUMNS.map(([id, title]) => el("label", {},
      el("input", { type: "radio", name: "by", value: id, onchange: () => this.ask({ by: id, cell: null, page: 1 }, true) }),
      el("span", {}, title))));
    if (window.matchMedia("(max-width: 70rem)").matches) $("drawer").open = false;
  }

  wire() {
    let waiting = 0;
    const soon = (id, change) => $(id).addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.ask({ ...change($(id)), page: 1 }), 120);
    });
    soon("q", (input) => ({ q: input.value.trim() }));
    for (const id of ["from", "to"]) soon(id, (input) => ({ [id]: yearOf(input.value) }));
    $("least").addEventListener("input", () => this.ask({ least: Number($("least").value), page: 1 }));
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("reset").addEventListener("click", () => this.ask({ ...NOTHING, by: this.asked.by, chosen: new Map() }, true));
    $("copy").addEventListener("click", () => this.copy());
    $("back").addEventListener("click", () => {
      this.ask({ cell: null, page: 1 }, true);
      $("map-heading").scrollIntoView({ block: "start" });
      this.grid.focus(this.lastCell);
    });
    $("csv").addEventListener("click", async () => {
      await this.papers.arrival;
      download("hepatag-map.csv", "text/csv", toCsv(this.papers, this.places, this.about.model));
    });
    $("ris").addEventListener("click", () => {
      download("hepatag-map.ris", "application/x-research-info-systems", toRis(this.papers, this.places, this.about.model));
    });
    for (const link of document.querySelectorAll(".skip")) {
      link.addEventListener("click", (event) => {
        event.preventDefault(); // what is behind “#” is the filters
        $(link.hash.slice(1)).focus();
      });
    }
    window.addEventListener("popstate", () => this.read());
    // On paper nothing can be turned over: more rows.
    window.addEventListener("beforeprint", () => this.drawList(500));
    window.addEventListener("afterprint", () => this.drawList());
  }

  /** Changes what is asked for; `step`: the browser's back button returns to what was before. */
  ask(change, step = false) {
    Object.assign(this.asked, change);
    const address = `#${addressOf(this.asked, this.papers)}`;
    if (address !== (location.hash || "#")) {
      history[step ? "pushState" : "replaceState"](null, "", address);
    }
    this.draw();
  }

  choose(axis, labels) {
    const chosen = new Map(this.asked.chosen);
    if (labels.size) chosen.set(axis, labels);
    else chosen.delete(axis);
    this.ask({ chosen, page: 1 }, true);
  }

  pick(row, column) {
    const cell = [row?.key ?? "all", column?.key ?? "all"];
    const same = this.asked.cell?.join() === cell.join();
    this.lastCell = this.grid.current;
    this.ask({ cell: same ? null : cell, page: 1 }, true);
    if (same) return;
    $("papers-heading").focus({ preventScroll: true });
    $("papers").scrollIntoView({ block: "start" });
  }

  /** Takes what is asked for from the address. */
  read() {
    this.asked = askedOf(location.hash.slice(1), this.papers);
    $("q").value = this.asked.q;
    $("from").value = this.asked.from || "";
    $("to").value = this.asked.to || "";
    $("least").value = this.asked.least;
    this.draw();
  }

  /** Reads the search box; an expression that cannot be read leaves the last good one in force. */
  search() {
    const message = [];
    try {
      if (this.asked.q !== this.readQuery) {
        // The page holds what --where chose: without words of its own a search leaves out nothing.
        this.query = this.asked.q ? parseQuery(this.asked.q, this.papers.scheme) : { tree: null, everything: true, notes: [] };
        this.matches = compileQuery(this.query, this.papers);
        this.readQuery = this.asked.q;
      }
      message.push(...this.query.notes);
      if (JSON.stringify(this.query.tree ?? 0).includes('"abstract"')) message.push("Words are looked for in titles: abstracts are not in this page.");
      $("q").removeAttribute("aria-invalid");
    } catch (error) {
      if (!(error instanceof QueryError)) throw error;
      message.push(error.message);
      $("q").setAttribute("aria-invalid", "true");
      this.matches ??= () => true;
    }
    const text = message.join(" ");
    if ($("q-message").textContent !== text) $("q-message").textContent = text;
  }

  draw() {
    const { asked, papers } = this;
    this.search();
    if (this.shownBy !== asked.by) {
      const [, title, entries] = COLUMNS.find(([id]) => id === asked.by);
      this.columns = entries(papers);
      this.grid.build(this.rows, this.columns, `Papers by interventional procedure and ${title.toLowerCase()}`, asked.by);
      this.shownBy = asked.by;
    }
    this.found = survey(papers, this.rows, this.columns, {
      matches: this.matches, first: asked.from, last: asked.to, least: asked.least, chosen: asked.chosen });
    const entry = (entries, key) => (key === "all" ? null : entries.find((one) => one.key === key));
    this.picked = asked.cell && [entry(this.rows, asked.cell[0]), entry(this.columns, asked.cell[1])];
    if (this.picked?.includes(undefined)) this.picked = null;
    this.grid.update(this.found, this.picked);
    this.drawFilters();
    this.drawList();
  }

  drawFilters() {
    const { asked, papers, found } = this;
    const said = found.total === papers.count
      ? papersWord(found.total) : `${NUMBER.format(found.total)} of ${papersWord(papers.count)}`;
    if ($("count").textContent !== said) $("count").textContent = said;
    $("least-shown").textContent = asked.least ? `at least ${asked.least.toFixed(2)}` : "any";
    $("spark").replaceChildren(...spark(found.perYear));
    for (const radio of $("columns").querySelectorAll("input")) radio.checked = radio.value === asked.by;
    for (const box of $("axes").querySelectorAll("input")) {
      const number = Number(box.dataset.label);
      box.checked = asked.chosen.get(papers.labels[number].axis)?.has(number) ?? false;
      box.parentElement.lastChild.textContent = NUMBER.format(found.facets[number]);
      box.parentElement.classList.toggle("nothing", !found.facets[number] && !box.checked);
    }
    const chips = this.chips();
    $("chips").replaceChildren(...chips.map(([text, change]) => el("li", {},
      el("button", { type: "button", "aria-label": `Remove filter ${text}`, onclick: () => this.removeFilter(change) }, text,
        el("span", { "aria-hidden": "true" }, "×")))));
    $("chips").hidden = !chips.length;
    $("active-count").hidden = !chips.length;
    $("active-count").textContent = String(chips.length);
    $("reset").disabled = !chips.length && !asked.cell;
  }

  removeFilter(change) {
    change();
    for (const [id, value] of [["q", this.asked.q], ["from", this.asked.from || ""], ["to", this.asked.to || ""], ["least", this.asked.least]]) $(id).value = value;
    ($("chips").querySelector("button") ?? $("map-heading")).focus();
  }

  /** Filters in use: what each says, and how to take it away. */
  chips() {
    const { asked, papers } = this;
    const chips = [];
    if (asked.q) chips.push([`Search: ${asked.q}`, () => this.ask({ q: "", page: 1 }, true)]);
    if (asked.from) chips.push([`from ${asked.from}`, () => this.ask({ from: 0, page: 1 }, true)]);
    if (asked.to) chips.push([`to ${asked.to}`, () => this.ask({ to: 0, page: 1 }, true)]);
    if (asked.least) chips.push([`probability at least ${asked.least.toFixed(2)}`, () => this.ask({ least: 0, page: 1 }, true)]);
    for (const [axis, labels] of asked.chosen) {
      for (const label of labels) {
        chips.push([papers.labels[label].short, () => this.choose(axis, new Set([...labels].filter((one) => one !== label)))]);
      }
    }
    return chips;
  }

  drawList(most = PAGE) {
    const { asked, papers, found, picked } = this;
    const keep = picked ? inCell(papers, found, ...picked) : found.keep;
    this.places = papers.sorted(keep, asked.sort);
    const pages = Math.max(1, Math.ceil(this.places.length / PAGE));
    const page = Math.min(asked.page, pages);
    const looked = picked ? picked.flatMap((entry) => entry?.labels.map((label) => label.number) ?? []) : [];
    const first = (page - 1) * PAGE;
    const shown = this.places.slice(first, first + most);
    $("papers-heading").textContent = picked
      ? picked.map((entry, n) => entry?.full ?? (n ? "all" : "All procedures")).join(" × ") : "Papers";
    $("back").hidden = !picked;
    const said = this.places.length > PAGE
      ? `${papersWord(this.places.length)}, ${NUMBER.format(first + 1)} to ${NUMBER.format(first + shown.length)} shown`
      : papersWord(this.places.length);
    if ($("papers-count").textContent !== said) $("papers-count").textContent = said;
    $("list").replaceChildren(
      el("caption", { class: "unseen" }, $("papers-heading").textContent),
      papersHead(asked.sort, (key) => this.sort(key)),
      el("tbody", { role: "rowgroup" }, ...Array.from(shown, (i) => paperRow(papers, i, looked))));
    $("pager").replaceChildren(...pager(page, pages, (to) => {
      this.ask({ page: to }, true);
      $("papers-heading").focus({ preventScroll: true });
      $("papers").scrollIntoView({ block: "start" });
    }));
    $("csv").disabled = $("ris").disabled = !this.places.length;
  }

  sort(key) {
    const now = this.asked.sort;
    const first = key === "year" ? "-year" : key;
    const other = key === "year" ? "year" : `-${key}`;
    this.ask({ sort: now === first ? other : first, page: 1 }, true);
    $("list").querySelector(`th.${key} button`).focus();
  }

  async copy() {
    const button = $("copy");
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy it from the address bar";
    }
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  }
}

function yearOf(text) {
  return /^\d{4}$/.test(text) ? Number(text) : 0;
}

/** What the banner says of the labels: whose, as of when, how good. */
function banner(about, papers) {
  const quality = about.quality;
  const figure = quality && `micro-F1 ${quality.value.toFixed(2)}` +
    (quality.low === null ? "" : ` (95 % interval ${quality.low.toFixed(2)} to ${quality.high.toFixed(2)})`);
  const grade = !quality ? "how good it is, is not known here"
    : quality.on === "test" ? `${figure} on its test set`
      : `${figure} on its development set, which flatters`;
  const humans = papers.persons.size;
  return [
    el("p", {}, el("strong", {}, humans ? "Most of these labels are a machine's." : "These labels are a machine's."),
      " Read a paper before you rely on its labels; what the map does not show may still exist.",
      humans ? ` A person has checked ${papersWord(humans)}.` : ""),
    el("dl", {},
      el("div", {}, el("dt", {}, about.pubmed ? "As of PubMed file" : "Latest input"), el("dd", {}, about.source || "unknown")),
      el("div", {}, el("dt", {}, "Labelled"), el("dd", {}, about.labelled || "unknown")),
      el("div", {}, el("dt", {}, "Model"), el("dd", {}, about.model || "unknown")),
      el("div", {}, el("dt", {}, "Quality"), el("dd", {}, grade)))];
}

/** What is asked for, as the part of the address behind “#”; what is as at first is left out. */
function addressOf(asked, papers) {
  const found = new URLSearchParams();
  if (asked.by !== NOTHING.by) found.set("by", asked.by);
  if (asked.q) found.set("q", asked.q);
  if (asked.from) found.set("from", asked.from);
  if (asked.to) found.set("to", asked.to);
  if (asked.least) found.set("p", asked.least);
  for (const [axis, labels] of asked.chosen) {
    if (labels.size) found.set(axis, [...labels].map((label) => papers.labels[label].name).join("."));
  }
  if (asked.cell) found.set("cell", asked.cell.join("."));
  if (asked.sort !== NOTHING.sort) found.set("sort", asked.sort);
  if (asked.page > 1) found.set("page", asked.page);
  return found.toString();
}

/** The reverse; whatever an address says that the page does not know is passed over. */
function askedOf(address, papers) {
  const given = new URLSearchParams(address);
  const chosen = new Map();
  for (const [axis, labels] of papers.axes) {
    const names = (given.get(axis) ?? "").split(".");
    const numbers = labels.filter((label) => names.includes(label.name)).map((label) => label.number);
    if (numbers.length) chosen.set(axis, new Set(numbers));
  }
  const by = given.get("by");
  const least = Number(given.get("p"));
  const cell = (given.get("cell") ?? "").split(".");
  return {
    by: COLUMNS.some(([id]) => id === by) ? by : NOTHING.by,
    q: (given.get("q") ?? "").slice(0, MAX_CHARACTERS),
    from: yearOf(given.get("from") ?? ""),
    to: yearOf(given.get("to") ?? ""),
    least: least > 0 && least < 1 ? least : 0,
    chosen,
    cell: cell.length === 2 ? cell : null,
    sort: SORTS.has(given.get("sort")) ? given.get("sort") : NOTHING.sort,
    page: Math.max(1, Math.floor(Number(given.get("page"))) || 1),
  };
}

async function start() {
  if (!("DecompressionStream" in window)) {
    $("lead").textContent = "This page needs a browser of 2023 or later.";
    return;
  }
  const { about, scheme, papers } = JSON.parse($("data").textContent);
  $("data").remove(); // the text is not needed twice
  new Page(about, await Papers.open(papers, scheme));
  document.documentElement.dataset.ready = "yes";
}

start();
