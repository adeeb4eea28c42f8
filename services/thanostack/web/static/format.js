// Values, times and labels as text.

export const PALETTE = [
  "#5b8def", "#e8743b", "#19a979", "#c2539b", "#b59a00", "#8a63d2", "#13a4b4", "#d64550",
  "#7a9a2e", "#9c7a5b",
];

const UNITS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** Seconds of a duration such as 90s, 15m or 1h30m; NaN if it is none. */
export function seconds(text) {
  const parts = [...text.matchAll(/(\d+)([smhdw])/g)];
  if (!parts.length || parts.map((part) => part[0]).join("") !== text) return NaN;
  return parts.reduce((sum, [, count, unit]) => sum + count * UNITS[unit], 0);
}

/** A number for axes and legends: short, with a unit of thousands. */
export function short(value) {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "Inf");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e15)) return value.toExponential(3);
  for (const [unit, scale] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e4]]) {
    if (size >= scale) return trim(value / (unit === "k" ? 1e3 : scale)) + unit;
  }
  return trim(value);
}

const trim = (value) => String(Number(value.toPrecision(5)));
const two = (number) => String(number).padStart(2, "0");

/** A local time; the date too if a day is not clear from the context. */
export function clock(time_s, { date = false, second = false } = {}) {
  const t = new Date(time_s * 1000);
  const text = `${two(t.getHours())}:${two(t.getMinutes())}${second ? `:${two(t.getSeconds())}` : ""}`;
  return date ? `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ${text}` : text;
}

/** Labels as PromQL writes a series. */
export function series(labels) {
  const { __name__: name = "", ...rest } = labels;
  const pairs = Object.entries(rest).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return pairs.length || !name ? `${name}{${pairs.join(", ")}}` : name;
}
