// Sort a table by a column, within each section; the section's own heading stays on top.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const up = header.getAttribute("aria-sort") === "descending";
    for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.cells[header.cellIndex];
      return header.classList.contains("number") || cell.dataset.value !== undefined
        ? parseFloat(cell.dataset.value ?? "NaN") : cell.textContent.trim();
    };
    for (const body of header.closest("table").tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);  // blanks last
        const order = typeof x === "string" ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      });
      body.append(...rows);
    }
  });
}
// Paper cannot be unfolded: open what is closed while printing, for browsers without ::details-content.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
