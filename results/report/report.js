// Sorts and filters tables, and answers for the reader's own values. Every page can be read without it.
"use strict";

function key(cell) {
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = parseFloat(text.replace(/,/g, "").replace(/^[≤<>+[\s]+/, ""));
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1; // words after numbers
}

function sortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    if ([...table.tBodies[0].rows].some((row) => row.cells[column].querySelector("img"))) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[column]), row]);
      rows.sort((a, b) => compare(a[0], b[0]) * (down ? -1 : 1));
      table.tBodies[0].append(...rows.map((pair) => pair[1]));
    });
  });
}

function labelled(words, element) {
  const label = document.createElement("label");
  label.append(words, element);
  return label;
}

function filterable(table) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 6) return;
  const verdictOf = (row) => row.querySelector("[data-verdict]")?.dataset.verdict;
  const verdicts = [...new Set(rows.map(verdictOf).filter(Boolean))];
  const search = Object.assign(document.createElement("input"), { type: "search" });
  const choice = document.createElement("select");
  choice.append(...["all", ...verdicts].map((name) => new Option(name, name)));
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = choice.value === "all" || verdictOf(row) === choice.value;
      row.hidden = !(fits && words.every((word) => text.includes(word)));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} lines`;
  };
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.append(labelled("Only lines with", search));
  if (verdicts.length > 1) tools.append(labelled("Verdict", choice));
  tools.append(count);
  search.addEventListener("input", apply);
  choice.addEventListener("change", apply);
  table.parentElement.before(tools);
  apply();
}

function nearest(rows, wanted) {
  const distance = (row) => Math.abs(Math.log(Number(row.dataset.value) / wanted));
  const least = Math.min(...rows.map(distance));
  return rows.filter((row) => distance(row) - least < 1e-9);
}

function within(row, table) {
  const cells = [...row.cells].filter((cell) => cell.dataset.mib);
  if (!cells.length) return "";
  const fits = cells.filter((cell) => !cell.classList.contains("over"));
  const names = fits.map((cell) => table.tHead.rows[0].cells[cell.cellIndex].textContent);
  return names.length ? ` Within your memory: ${names.join("; ")}.` : " Nothing measured fits into your memory.";
}

function answering(form) {
  const tables = [...document.querySelectorAll("table")].filter((table) => table.querySelector("tr[data-axis]"));
  const apply = () => {
    const answers = [];
    const memory = Number(form.elements.memory.value);
    for (const table of tables) {
      const rows = [...table.querySelectorAll("tr[data-axis]")];
      const wanted = Number(form.elements[rows[0].dataset.axis]?.value);
      const near = wanted > 0 ? nearest(rows, wanted) : [];
      rows.forEach((row) => row.classList.toggle("near", near.includes(row)));
      for (const cell of table.querySelectorAll("td[data-mib]")) {
        const over = memory > 0 && Number(cell.dataset.mib) > memory;
        cell.classList.toggle("over", over);
        cell.title = over ? "more than your memory" : "";
      }
      answers.push(...near.filter((row) => row.dataset.answer).map((row) => row.dataset.answer + within(row, table)));
    }
    document.getElementById("answers").replaceChildren(
      ...answers.map((words) => Object.assign(document.createElement("li"), { textContent: words })),
    );
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll("table.filtered").forEach(filterable);
const form = document.getElementById("yours");
if (form) answering(form);
