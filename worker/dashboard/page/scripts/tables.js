// Tables, which a narrow screen shows as cards: a cell then bears its column's name, and keeps its role, which some
// browsers take away with a table's layout.

const ROLES = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", th: "rowheader", td: "cell" };

function cell(content, attributes = {}) {
  return make("td", attributes, ...(Array.isArray(content) ? content : [content]));
}

function numberCell(text) {
  return cell(text, { class: "number" });
}

/** Show either the rows or what to do while there are none. */
function fillTable(name, rows) {
  byId(`${name}-none`).hidden = rows.length > 0;
  byId(`${name}-table`).hidden = rows.length === 0;
  fillRows(byId(`${name}-rows`), rows);
}

function fillRows(body, rows) {
  body.replaceChildren(...rows);
  const table = body.closest("table");
  const heads = [...table.tHead.rows[0].cells].map(({ textContent }) => textContent);
  for (const row of rows) nameCells([...row.cells], heads);
  for (const part of [table, ...table.querySelectorAll("thead, tbody, tr, th, td")]) {
    part.setAttribute("role", part.scope === "col" ? "columnheader" : ROLES[part.localName]);
  }
}

/** Name the cells from the last on: the first columns may be filled by a cell of a row above. */
function nameCells(cells, heads) {
  for (const [index, name] of heads.slice(heads.length - cells.length).entries()) cells[index].dataset.label = name;
}
