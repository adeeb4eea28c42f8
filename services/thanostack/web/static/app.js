// The query page: a form, its state in the URL under upstream's parameter names, and two views.
import { Chart } from "./chart.js";
import { clock, seconds, series as seriesText, short } from "./format.js";

const RANGES = ["5m", "15m", "1h", "6h"];
const POINTS = 360;
const ROWS_MAX = 1000;
const AGAIN_MS = 2000;
const $ = (id) => document.getElementById(id);
const chart = new Chart($("chart"), $("tip"));
let state = {};
let running = null;

/** Links of Prometheus and Thanos open here: g0.expr, g0.tab (0 graph, 1 table), g0.range_input… */
function readURL() {
  const given = new URLSearchParams(location.search);
  const get = (name, otherwise) => given.get(`g0.${name}`) ?? otherwise;
  const range = get("range_input", "1h");
  state = {
    expr: get("expr", ""),
    tab: get("tab", "0") === "1" ? "table" : "graph",
    range: seconds(range) > 0 ? range : "1h",
    end: get("end_input", ""),
    dedup: get("deduplicate", "1") !== "0",
    partial: get("partial_response", "1") !== "0",
  };
}

function writeURL() {
  const parameters = {
    expr: state.expr, tab: state.tab === "table" ? "1" : "0", range_input: state.range,
    end_input: state.end, deduplicate: state.dedup ? "1" : "0",
    partial_response: state.partial ? "1" : "0",
  };
  const kept = Object.entries(parameters).filter(([, value]) => value !== "");
  const search = new URLSearchParams(kept.map(([name, value]) => [`g0.${name}`, value]));
  if (`?${search}` !== location.search) history.pushState(null, "", `${location.pathname}?${search}`);
}

function showForm() {
  $("expr").value = state.expr;
  $("end").value = state.end.replace(" ", "T");
  $("dedup").checked = state.dedup;
  $("partial").checked = state.partial;
  for (const tab of ["graph", "table"]) {
    $(`tab-${tab}`).setAttribute("aria-selected", String(state.tab === tab));
  }
  const shown = RANGES.includes(state.range) ? RANGES : [...RANGES, state.range];
  $("ranges").hidden = state.tab === "table";
  $("ranges").replaceChildren(...shown.map((range) => {
    const button = element("button", range);
    button.type = "button";
    button.setAttribute("aria-pressed", String(range === state.range));
    button.addEventListener("click", () => change({ range }));
    return button;
  }));
}

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function messages(kind, texts) {
  $("messages").append(...texts.map((text) => element("p", text, `message ${kind}`)));
}

function clear(status) {
  $("messages").replaceChildren();
  $("status").textContent = status;
}

/** Ask the API; an answer that is no success is thrown as text. */
async function ask(path, parameters, signal) {
  const response = await fetch(`api/v1/${path}`, { method: "POST", body: new URLSearchParams(parameters), signal });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`HTTP ${response.status}: ${text.slice(0, 300) || response.statusText}`);
  }
  if (answer.status !== "success") {
    throw Object.assign(new Error(`${answer.errorType}: ${answer.error}`), { again: response.headers.has("Retry-After") });
  }
  return answer;
}

async function execute() {
  running?.abort();
  if (!state.expr.trim()) return clear("Write an expression and press Enter.");
  const mine = (running = new AbortController());
  clear("Running…");
  const started = performance.now();
  const end = state.end ? new Date(state.end).getTime() / 1000 : Date.now() / 1000;
  try {
    const answer = await (state.tab === "graph" ? runRange : runInstant)(end, mine.signal);
    const took = ((performance.now() - started) / 1000).toFixed(3);
    const count = Array.isArray(answer.data.result) ? answer.data.result.length : 1;
    const what = { scalar: "scalar", string: "string" }[answer.data.resultType] ?? "series";
    clear(`${count} ${what} in ${took} s`);
    messages("warning", [...(answer.warnings ?? []), ...(answer.infos ?? [])]);
    if (!count) messages("warning", ["Nothing matches in this time."]);
  } catch (error) {
    if (mine.signal.aborted) return;
    clear("");
    $("graph").hidden = true;
    $("table").replaceChildren();
    const lost = error instanceof TypeError ? "The server does not answer: " : "";
    messages("error", [lost + error.message]);
    if (error.again) setTimeout(() => mine === running && execute(), AGAIN_MS);
  }
}

function parameters() {
  return { query: state.expr, dedup: state.dedup, partial_response: state.partial };
}

async function runRange(now, signal) {
  const span = seconds(state.range);
  const step = Math.max(1, Math.ceil(span / POINTS));
  const end = Math.floor(now / step) * step;
  const start = end - Math.floor(span / step) * step;
  const answer = await ask("query_range", { ...parameters(), start, end, step }, signal);
  $("graph").hidden = false;
  legend(chart.show(answer.data.result, start, end, step));
  return answer;
}

async function runInstant(time, signal) {
  const answer = await ask("query", { ...parameters(), time }, signal);
  const { resultType: kind, result } = answer.data;
  $("graph").hidden = true;
  const single = kind === "scalar" || kind === "string";
  const rows = single ? [{ metric: { __name__: kind }, value: result }] : result;
  const lines = rows.slice(0, ROWS_MAX).map(({ metric, value, values }) => [
    element("td", seriesText(metric), "series"),
    element("td", values ? values.map(([t, v]) => `${v} @${clock(t, { second: true })}`).join("\n") : value[1], "number"),
  ]);
  fill(["Series", "Value"], lines, rows.length);
  return answer;
}

/** Under the chart: one row a series; a click shows it alone. */
function legend(lines) {
  const rows = lines.slice(0, ROWS_MAX).map(({ name, color, points }) => {
    const values = points.map(([, v]) => v).filter(Number.isFinite);
    const cell = element("td", "", "series");
    const dot = element("span", "", "dot");
    dot.style.background = color;
    cell.append(dot, name);
    const bounds = [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
    const numbers = values.length ? [...bounds, values.at(-1)].map(short) : ["–", "–", "–"];
    return [cell, ...numbers.map((text) => element("td", text, "number"))];
  });
  const made = fill(["Series", "Min", "Max", "Last"], rows, lines.length);
  made.forEach((row, i) => {
    row.className = "choice";
    row.tabIndex = 0;
    row.title = "Show this series alone, or all again";
    const pick = () => {
      const only = chart.pick(i);
      made.forEach((other, j) => other.classList.toggle("faded", only !== null && only !== j));
    };
    row.addEventListener("click", pick);
    row.addEventListener("keydown", (event) => event.key === "Enter" && pick());
  });
}

function fill(heads, lines, total) {
  const head = element("tr");
  head.append(...heads.map((text, i) => {
    const cell = element("th", text, i ? "number" : "");
    cell.scope = "col";
    return cell;
  }));
  const rows = lines.map((cells) => {
    const row = element("tr");
    row.append(...cells);
    return row;
  });
  const more = total > lines.length ? [element("caption", `The first ${lines.length} of ${total} series.`)] : [];
  $("table").replaceChildren(...more, ...(total ? [head, ...rows] : []));
  return rows;
}

function change(part) {
  Object.assign(state, part, { expr: $("expr").value });
  writeURL();
  showForm();
  execute();
}

function start() {
  readURL();
  showForm();
  execute();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  change({});
});
$("dedup").addEventListener("change", () => change({ dedup: $("dedup").checked }));
$("partial").addEventListener("change", () => change({ partial: $("partial").checked }));
$("end").addEventListener("change", () => change({ end: $("end").value.replace("T", " ") }));
for (const tab of ["graph", "table"]) $(`tab-${tab}`).addEventListener("click", () => change({ tab }));
window.addEventListener("popstate", start);
fetch("api/v1/label/__name__/values").then((response) => response.json()).then((answer) => {
  $("names").replaceChildren(...(answer.data ?? []).slice(0, 5000).map((name) => new Option(name)));
}).catch(() => {}); // Suggestions only; the query itself tells what is wrong.
start();
