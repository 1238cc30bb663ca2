"use strict";
// Tables sort by a click, or Enter, on a heading: up, then down. What has no value stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = heading.dataset.kind === "number";
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        if (!numeric) return [cell.textContent, row];
        return ["v" in cell.dataset ? Number(cell.dataset.v) : null, row];
      });
      const sign = down ? -1 : 1;
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (numeric ? a - b : a < b ? -1 : a > b ? 1 : 0);
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
// A link to a set-up's runs opens the table that holds them.
const reveal = (hash) => {
  const row = document.getElementById(hash.slice(1));
  const details = row?.closest("details");
  if (details && !details.open) {
    details.open = true;
    row.scrollIntoView();
  }
};
for (const link of document.querySelectorAll('a[href^="#run-of-"]'))
  link.addEventListener("click", () => reveal(link.hash));
reveal(location.hash);
