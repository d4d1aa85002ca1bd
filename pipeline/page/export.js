"use strict";

/* Papers as CSV and RIS, with the columns and keywords of `hepatag export`; abstracts are not in the page. */

/** No spreadsheet shall take a title for a formula, so such a text gets an apostrophe in front. */
function inert(value) {
  return /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
}

function csvCell(value) {
  const text = typeof value === "string" ? inert(value) : value === null ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function chanceOf(papers, i, label) {
  const value = papers.chance(i, label);
  return Number.isNaN(value) ? null : value;
}

function toCsv(papers, places, model) {
  const axes = papers.scheme.axes;
  const titles = new Map(axes.map((axis) => [axis.name, axis.title]));
  const heading = [
    "PMID", "ID", "Title", "Year", "Journal", "DOI", "Link", "In scope", ...axes.map((axis) => axis.title), "Flags",
    "Doubtful", "Labelled by", "Model", "Reasons", ...papers.labels.map((label) => `Probability: ${label.title}`)];
  const lines = [heading.map(csvCell).join(",")];
  for (const i of places) {
    lines.push([
      papers.pmid(i) || null, papers.id(i), papers.title(i), papers.year(i) || null, papers.journal(i), papers.doi(i),
      papers.link(i), papers.inScope(i) ? "yes" : "no",
      ...axes.map((axis) => papers.on(i, axis.name).map((label) => label.title).join("; ")),
      papers.list(i, "flags").join("; "),
      papers.list(i, "doubtful").map((axis) => titles.get(axis) ?? axis).join("; "),
      papers.human(i) ? `human:${papers.person(i)}` : "model", model,
      reasonsOf(papers, i).map(([sentence, labels]) =>
        `${labels.map((label) => papers.labels[label].title).join(", ")}: ${sentence}`).join(" | "),
      ...papers.labels.map((label) => chanceOf(papers, i, label.number)),
    ].map(csvCell).join(","));
  }
  return `\ufeff${lines.join("\r\n")}\r\n`; // Excel reads UTF-8 only with the mark
}

function toRis(papers, places, model) {
  const lines = [];
  for (const i of places) {
    const labels = papers.given(i);
    const found = labels.map((label) => {
      const value = chanceOf(papers, i, label.number);
      return value === null ? label.title : `${label.title} (${value.toFixed(2)})`;
    });
    const by = papers.human(i) ? `human:${papers.person(i)}` : model;
    const fields = [
      ["TY", "JOUR"], ["ID", papers.id(i)], ["TI", papers.title(i)], ["T2", papers.journal(i)],
      ["PY", papers.year(i) || ""], ["DO", papers.doi(i)], ["AN", papers.pmid(i) || ""],
      ["DB", papers.pmid(i) ? "PubMed" : ""], ["UR", papers.link(i)], ...labels.map((label) => ["KW", label.title]),
      ["N1", `Labels by hepatag, ${by}: ${found.join("; ") || "out of scope"}`],
      ...papers.list(i, "flags").map((flag) => ["N1", `Flag: ${flag}`]),
    ];
    for (const [tag, value] of fields) if (value !== "") lines.push(`${tag}  - ${value}`);
    lines.push("ER  - ", "");
  }
  return lines.join("\n") + "\n";
}

/** The reasons of a paper as [sentence, label numbers]; 0 stands for the title. */
function reasonsOf(papers, i) {
  return (papers.reasons[i] ?? []).map(([sentence, labels]) => [sentence === 0 ? papers.title(i) : sentence, labels]);
}

/** Hands a text to the reader as a file; nothing leaves the page. */
function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
