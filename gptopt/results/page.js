// Tables that sort by a click on their head, and search in long ones. Without it all is there, too.
"use strict";

// "2.3134 ± 0.0170" -> 2.3134, "< 0.0001" -> 0.0001, "307,200" -> 307200; else NaN
function number(text) {
  const found = /^[<>]?\s*([+-]?(?:[\d,]*\.?\d+(?:e[+-]?\d+)?|inf))(?![\w.])/i.exec(text.trim());
  if (!found) return NaN;
  return Number(found[1].replaceAll(",", "").replace(/inf/i, "Infinity"));
}

// Empty cells come last in both directions; texts sort as people count: seed-2 before seed-10.
function compare(one, other, isNumeric, sign) {
  if (!one || !other) return (one ? 0 : 1) - (other ? 0 : 1);
  const order = isNumeric
    ? Math.sign(number(one) - number(other)) || 0
    : one.localeCompare(other, "en", { numeric: true });
  return sign * order;
}

function sort(table, column, head) {
  const isUp = head.getAttribute("aria-sort") !== "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  const text = new Map(rows.map((row) => [row, row.cells[column].textContent]));
  const isNumeric = [...text.values()].every((cell) => !cell || !Number.isNaN(number(cell)));
  const sign = isUp ? 1 : -1;
  rows.sort((a, b) => compare(text.get(a), text.get(b), isNumeric, sign));
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, head));
    head.append(button);
  });
}

for (const long of document.querySelectorAll("details.long")) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "words that a row must have";
  field.setAttribute("aria-label", "search the table");
  const rows = [...long.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const count = long.querySelector("summary");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : `${shown} rows`;
  });
  count.after(field);
}
