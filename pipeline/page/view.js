"use strict";

/* What is drawn: the grid, its legend, the filters' lists, the table of papers. All text goes in as text, never as HTML. */

const NUMBER = new Intl.NumberFormat("en");
const PAGE = 50; // papers per page of the table
const FLAG_WORDS = {
  retracted: "Retracted", no_abstract: "No abstract", truncated_source: "Abstract cut at the source",
  not_english: "Not in English", cut_text: "Read in part", human_outdated: "Text changed since a person's labels",
};

/** An element: `el("p", { class: "x", onclick: f, hidden: true }, "text", child)`. */
function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function papersWord(count) {
  return `${NUMBER.format(count)} ${count === 1 ? "paper" : "papers"}`;
}

function percent(value) {
  return Number.isNaN(value) ? "–" : value.toFixed(2);
}

/** Strongest evidence first: the order of segments in bars and legend. */
const DESIGN_ORDER = [
  "meta_analysis", "randomized_trial", "prospective", "retrospective", "case_report", "review", "protocol",
  "preclinical", "other_design"];

function byStrength(designs) {
  return designs.toSorted((a, b) => DESIGN_ORDER.indexOf(a.name) - DESIGN_ORDER.indexOf(b.name));
}

class Grid {
  /** `onpick(row, column)` gets entries, null for a total. */
  constructor(table, hint, papers, onpick) {
    Object.assign(this, { table, hint, papers, onpick });
    this.designs = papers.axes.get("study_design");
    this.order = byStrength(this.designs).map((label) => this.designs.indexOf(label));
    table.addEventListener("keydown", (event) => this.#steer(event));
    table.addEventListener("pointerover", (event) => this.#explain(event.target.closest("button")));
    table.addEventListener("pointerleave", () => this.#explain(null));
    table.addEventListener("focusin", (event) => this.#explain(event.target.closest("button")));
    table.addEventListener("focusout", () => this.#explain(null));
  }

  /** Builds rows and columns; `update` fills in the numbers. */
  build(rows, columns, caption, columnTitle) {
    Object.assign(this, { rows: [...rows, null], columns: [...columns, null] });
    this.cells = [];
    const head = [];
    const groups = [];
    for (const column of columns) {
      if (groups.length && groups.at(-1).group === column.group) groups.at(-1).span++;
      else groups.push({ group: column.group, span: 1 });
    }
    const grouped = groups.some((one) => one.group);
    if (grouped) {
      head.push(el("tr", { class: "groups" }, el("td", { class: "corner" }),
        ...groups.map(({ group, span }) => group
          ? el("th", { scope: "colgroup", colspan: span }, el("span", {}, group)) : el("td", { colspan: span })),
        el("td")));
    }
    let lastGroup = columns[0]?.group;
    head.push(el("tr", {}, el("th", { scope: "col", class: "corner" }, "Procedure"),
      ...columns.map((column) => {
        const begins = column.group !== lastGroup;
        lastGroup = column.group;
        return el("th", { scope: "col", class: begins ? "begins" : null, title: column.full }, column.short);
      }),
      el("th", { scope: "col", class: "total" }, "All")));
    const bodies = [];
    let group = null;
    for (const [r, row] of this.rows.entries()) {
      if (!bodies.length || (row?.group ?? "total") !== group) {
        group = row?.group ?? "total";
        bodies.push(el("tbody", { class: row ? null : "totals" }));
      }
      bodies.at(-1).append(this.#row(r, row));
    }
    this.table.replaceChildren(
      el("caption", { class: "unseen" }, caption),
      el("colgroup", {}, el("col", { class: "names" }), ...this.columns.map(() => el("col"))),
      el("thead", {}, ...head), ...bodies);
    this.table.dataset.columns = columnTitle;
    this.current = null;
  }

  #row(r, row) {
    const line = [];
    let lastGroup = this.columns[0]?.group;
    const cells = this.columns.map((column, c) => {
      const count = el("span", { class: "n" });
      const bar = el("span", { class: "bar-of-designs" });
      const button = el("button", { type: "button", tabindex: "-1", onclick: () => this.onpick(row, column) }, count, bar);
      Object.assign(button, { at: [r, c] });
      line.push({ button, count, bar });
      const begins = column && column.group !== lastGroup;
      lastGroup = column?.group;
      const kind = column && row ? (begins ? "begins" : null) : "total";
      return el("td", { class: kind }, button);
    });
    this.cells.push(line);
    const full = row ? row.full : "All papers";
    return el("tr", {}, el("th", { scope: "row", title: full }, row ? row.short : "All"), ...cells);
  }

  /** Puts numbers into the cells; `picked` is [row, column] or null. */
  update(found, picked) {
    const { perDesign } = found;
    const wide = this.columns.length;
    this.found = found;
    let greatest = 1;
    const totals = this.cells.map((line, r) => line.map((_, c) => {
      let sum = 0;
      for (let d = 0, at = (r * wide + c) * perDesign; d < perDesign; d++) sum += found.cells[at + d];
      if (this.rows[r] && this.columns[c] && sum > greatest) greatest = sum;
      return sum;
    }));
    this.totals = totals;
    let first = null;
    for (const [r, line] of this.cells.entries()) {
      for (const [c, { button, count, bar }] of line.entries()) {
        const sum = totals[r][c];
        button.hidden = !sum;
        count.textContent = sum ? NUMBER.format(sum) : "";
        if (!sum) continue;
        const inside = this.rows[r] && this.columns[c];
        // Counts span three orders of magnitude: a power below one keeps the small ones apart.
        const tint = inside ? 7 + 63 * (sum / greatest) ** 0.4 : 0;
        button.style.setProperty("--tint", `${Math.round(tint)}%`);
        bar.style.background = this.#bar(this.#shares(r, c), sum);
        const mine = picked && picked[0] === this.rows[r] && picked[1] === this.columns[c];
        button.setAttribute("aria-pressed", String(Boolean(mine)));
        button.setAttribute("aria-label", this.#spoken(r, c, sum));
        button.tabIndex = -1;
        first ??= button;
        if (mine) first = button;
      }
    }
    // One stop for the Tab key; arrow keys do the rest.
    const here = this.current && !this.current.hidden && !picked ? this.current : first;
    if (here) here.tabIndex = 0;
    this.current = here;
  }

  #shares(r, c) {
    const at = (r * this.columns.length + c) * this.found.perDesign;
    return this.order.map((d) => [this.designs[d], this.found.cells[at + d]]).filter(([, count]) => count);
  }

  #bar(shares, sum) {
    const stops = [];
    let done = 0;
    for (const [label, count] of shares) {
      const end = done + (100 * count) / sum;
      stops.push(`var(--design-${label.name}) ${done.toFixed(2)}% ${end.toFixed(2)}%`);
      done = end;
    }
    if (done < 99.99) stops.push(`var(--track) ${done.toFixed(2)}% 100%`);
    return `linear-gradient(90deg, ${stops.join(", ")})`;
  }

  heading(r, c) {
    const [row, column] = [this.rows[r], this.columns[c]];
    return [row?.full ?? "All procedures", column?.full ?? "all"].join(" × ");
  }

  #spoken(r, c, sum) {
    const shares = this.#shares(r, c).map(([label, count]) => `${count} ${label.short.toLowerCase()}`);
    return `${this.heading(r, c)}: ${papersWord(sum)}${shares.length ? `; ${shares.join(", ")}` : ""}`;
  }

  /** The small card beside a cell under the pointer or the focus; the same is in the cell's label for those who listen. */
  #explain(button) {
    this.hint.hidden = !button?.at;
    if (this.hint.hidden) return;
    const [r, c] = button.at;
    this.hint.replaceChildren(
      el("strong", {}, this.heading(r, c)), el("span", {}, papersWord(this.totals[r][c])),
      el("ul", {}, ...this.#shares(r, c).map(([label, count]) =>
        el("li", {}, el("i", { class: `swatch ${label.name}` }), `${label.short} `, el("b", {}, NUMBER.format(count))))));
    const box = button.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.hint;
    const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), document.documentElement.clientWidth - width - 8);
    const below = box.bottom + 8 + height < window.innerHeight;
    this.hint.style.left = `${left}px`;
    this.hint.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - height - 8)}px`;
  }

  #steer(event) {
    if (event.key === "Escape") this.#explain(null);
    const button = event.target.closest("button");
    if (!button?.at || event.altKey || event.ctrlKey || event.metaKey) return;
    const [r, c] = button.at;
    const line = (places) => places.map(([y, x]) => this.cells[y][x].button).find((one) => !one.hidden);
    const across = (from, to, step) => Array.from({ length: Math.max(0, (to - from) / step + 1) }, (_, k) => from + k * step);
    const [lastRow, lastColumn] = [this.rows.length - 1, this.columns.length - 1];
    const target = {
      ArrowRight: () => line(across(c + 1, lastColumn, 1).map((x) => [r, x])),
      ArrowLeft: () => line(across(c - 1, 0, -1).map((x) => [r, x])),
      ArrowDown: () => line(across(r + 1, lastRow, 1).map((y) => [y, c])),
      ArrowUp: () => line(across(r - 1, 0, -1).map((y) => [y, c])),
      Home: () => line(across(0, lastColumn, 1).map((x) => [r, x])),
      End: () => line(across(lastColumn, 0, -1).map((x) => [r, x])),
    }[event.key]?.();
    if (target === undefined && !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    if (target) this.focus(target);
  }

  focus(button = this.current) {
    if (!button) return;
    if (this.current) this.current.tabIndex = -1;
    button.tabIndex = 0;
    this.current = button;
    button.focus();
  }
}

function legend(papers) {
  const shown = byStrength(papers.axes.get("study_design"));
  return [
    el("span", { class: "quiet" }, "Bar: share of study designs"),
    el("ul", {}, ...shown.map((label) => el("li", { title: label.title }, el("i", { class: `swatch ${label.name}` }), label.short))),
    el("span", { class: "quiet scale" }, "Cell: fewer ", el("i", { class: "ramp" }), " more papers"),
  ];
}

/** Papers per year, a bar each. */
function spark(perYear) {
  const years = [...perYear.keys()].filter(Boolean);
  if (!years.length) return [];
  const [first, last] = [Math.max(Math.min(...years), Math.max(...years) - 39), Math.max(...years)];
  const greatest = Math.max(...years.map((year) => perYear.get(year)));
  return Array.from({ length: last - first + 1 }, (_, k) => {
    const bar = el("i", { title: `${first + k}: ${papersWord(perYear.get(first + k) ?? 0)}` });
    bar.style.height = `${Math.round(100 * ((perYear.get(first + k) ?? 0) / greatest))}%`;
    return bar;
  });
}

/** One foldable list of labels per axis; `onchange(axis, label, on)`. */
function axisLists(papers, onchange) {
  return papers.scheme.axes.map((axis) => el("details", { class: "axis", open: axis.name === "cancer_type" || axis.name === "study_design" },
    el("summary", {}, el("span", {}, axis.title)),
    el("fieldset", {}, el("legend", { class: "unseen" }, axis.title),
      ...(axis.name === "study_design" ? byStrength : Array.from)(papers.axes.get(axis.name)).map((label) => el("label", { title: label.title },
        el("input", {
          type: "checkbox", "data-label": label.number,
          onchange: (event) => onchange(axis.name, label.number, event.target.checked),
        }),
        axis.name === "study_design" ? el("i", { class: `swatch ${label.name}` }) : null,
        el("span", {}, label.short), el("span", { class: "facet" }))))));
}

const PAPER_COLUMNS = [
  ["year", "Year"], ["title", "Title"], ["journal", "Journal"], ["design", "Study design"], [null, "Labels"],
  ["chance", "Least sure"]];

/** The head of the table of papers; `onsort(key)`. */
function papersHead(sort, onsort) {
  return el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...PAPER_COLUMNS.map(([key, title]) => {
    const mine = key && sort.replace("-", "") === key;
    const backwards = sort.startsWith("-");
    return el("th", {
      scope: "col", role: "columnheader", class: key ?? "labels",
      "aria-sort": mine ? (backwards ? "descending" : "ascending") : null,
    }, key ? el("button", { type: "button", onclick: () => onsort(key) }, title,
      el("span", { class: "arrow", "aria-hidden": "true" }, mine ? (backwards ? "▾" : "▴") : "")) : title);
  })));
}

/** A paper as a row. `looked` are the labels that the chosen cell is about. */
function paperRow(papers, i, looked) {
  const link = papers.link(i);
  const title = papers.title(i) || "(no title)";
  const cell = (name, label, ...children) => el("td", { role: "cell", class: name, "data-label": label }, ...children);
  const design = papers.on(i, "study_design");
  return el("tr", { role: "row" },
    cell("year", "Year", papers.year(i) ? String(papers.year(i)) : "–"),
    cell("title", "Title",
      link ? el("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, title) : el("span", {}, title),
      ...papers.list(i, "flags").map((flag) => el("span", { class: `flag ${flag}` }, FLAG_WORDS[flag] ?? flag)),
      papers.human(i) ? el("span", { class: "flag human" }, `Labels checked by ${papers.person(i)}`) : null,
      whyButton(papers, i)),
    cell("journal", "Journal", papers.journal(i)),
    cell("design", "Study design", ...design.map((label) => el("span", { title: label.title }, el("i", { class: `swatch ${label.name}` }), label.short))),
    cell("labels", "Labels", el("ul", { class: "given" }, ...papers.given(i).filter((label) => label.axis !== "study_design").map((label) =>
      el("li", { class: looked.includes(label.number) ? `${label.axis} looked` : label.axis, title: label.title }, label.short)))),
    cell("chance", "Least sure", percent(papers.weakest(i, looked.length ? papers.labels.filter((l) => looked.includes(l.number)) : undefined))));
}

/** Every label of a paper with its probability, and the sentence that carries it, axis by axis. */
function why(papers, i) {
  const sentences = new Map(reasonsOf(papers, i).flatMap(([text, labels]) => labels.map((label) => [label, text])));
  const doubtful = papers.list(i, "doubtful");
  const axes = papers.scheme.axes.filter((axis) => papers.on(i, axis.name).length);
  return el("div", { class: "why" }, ...axes.map((axis) => el("dl", {},
    el("dt", {}, axis.title, doubtful.includes(axis.name) ? el("em", {}, " (doubtful)") : null),
    ...papers.on(i, axis.name).map(({ number, title }, at, given) => {
      const sentence = sentences.get(number);
      const again = at + 1 < given.length && sentences.get(given[at + 1].number) === sentence; // quoted once, below both
      return el("dd", {},
        el("span", { class: "p" }, percent(papers.chance(i, number))), el("span", {}, title),
        sentence && !again ? el("q", {}, sentence) : null);
    }))));
}

/** A button that opens a row of its own below the paper's. */
function whyButton(papers, i) {
  const button = el("button", { type: "button", class: "opener", "aria-expanded": "false" },
    papers.packed.reasons ? "Probabilities and reasons" : "Probabilities",
    el("span", { class: "unseen" }, ` of: ${papers.title(i)}`));
  let row = null;
  button.addEventListener("click", async () => {
    await papers.arrival;
    if (row) row.remove();
    row = row ? null : el("tr", { role: "row", class: "more" },
      el("td", { role: "cell", colspan: PAPER_COLUMNS.length }, why(papers, i)));
    if (row) button.closest("tr").after(row);
    button.setAttribute("aria-expanded", String(Boolean(row)));
  });
  return button;
}

/** Buttons for pages of a list; `onpage(number)` from 1. */
function pager(page, pages, onpage) {
  if (pages < 2) return [];
  const button = (text, to, label) => el("button", {
    type: "button", disabled: to < 1 || to > pages || to === page, "aria-label": label, onclick: () => onpage(to) }, text);
  return [
    button("« First", 1, "First page"), button("‹ Previous", page - 1, "Previous page"),
    el("span", {}, `Page ${NUMBER.format(page)} of ${NUMBER.format(pages)}`),
    button("Next ›", page + 1, "Next page"), button("Last »", pages, "Last page")];
}
