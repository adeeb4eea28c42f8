// A line chart on a canvas: axes, several series, gaps as gaps, and what lies under the pointer.
import { PALETTE, clock, series as seriesText, short } from "./format.js";

const EDGE = { left: 64, right: 14, top: 12, bottom: 28 };
const TIP_ROWS = 10;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Round steps of about a wanted size: 1, 2 or 5 times a power of ten. */
function niceStep(wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= wanted * 0.999);
}

export class Chart {
  constructor(canvas, tip) {
    Object.assign(this, { canvas, tip, lines: [], start: 0, end: 1, step: 1, only: null, at: null });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointermove", (event) => this.hover(event.offsetX, event.offsetY));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("keydown", (event) => this.move(event));
  }

  /** Show range-query series: [{metric, values: [[t, text]]}]. */
  show(result, start, end, step) {
    this.lines = result.map(({ metric, values = [] }, i) => ({
      name: seriesText(metric),
      color: PALETTE[i % PALETTE.length],
      points: values.map(([t, text]) => [t, Number(text.replace("Inf", "Infinity"))]),
    }));
    Object.assign(this, { start, end, step, only: null, at: null });
    this.tip.hidden = true;
    this.draw();
    return this.lines;
  }

  /** Show one series alone, or all again. */
  pick(i) {
    this.only = this.only === i ? null : i;
    this.draw();
    return this.only;
  }

  get shown() {
    return this.lines.filter((_, i) => this.only === null || this.only === i);
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    this.width = canvas.clientWidth;
    this.height = canvas.clientHeight;
    if (!this.width) return;
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(this.height * ratio);
    const g = (this.g = canvas.getContext("2d"));
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(canvas);
    this.colors = Object.fromEntries(["grid", "soft", "back", "text"].map((n) => [n, style.getPropertyValue(`--${n}`)]));
    g.font = `12px ${style.fontFamily}`;
    this.scale();
    this.axes();
    for (const line of this.shown) this.line(line);
    if (this.at !== null) this.cursor();
  }

  scale() {
    let low = Infinity, high = -Infinity;
    for (const { points } of this.shown) {
      for (const [, v] of points) {
        if (!Number.isFinite(v)) continue;
        if (v < low) low = v;
        if (v > high) high = v;
      }
    }
    if (low > high) [low, high] = [0, 1];
    // Near zero the axis begins there: a line that hugs the lower edge reads as nothing.
    if (low > 0 && low < (high - low) * 0.6) low = 0;
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    this.low = low === 0 ? 0 : low - room;
    this.high = high + room;
    const inner = { w: this.width - EDGE.left - EDGE.right, h: this.height - EDGE.top - EDGE.bottom };
    this.x = (t) => EDGE.left + ((t - this.start) / (this.end - this.start || 1)) * inner.w;
    this.y = (v) => EDGE.top + (1 - (v - this.low) / (this.high - this.low)) * inner.h;
    this.timeAt = (x) => this.start + ((x - EDGE.left) / inner.w) * (this.end - this.start);
  }

  axes() {
    const { g, colors } = this;
    g.strokeStyle = colors.grid;
    g.fillStyle = colors.soft;
    g.lineWidth = 1;
    g.textBaseline = "middle";
    g.textAlign = "right";
    const step = niceStep((this.high - this.low) / 6);
    for (let n = Math.ceil(this.low / step); n * step <= this.high; n++) {
      const y = Math.round(this.y(n * step)) + 0.5;
      this.stroke(EDGE.left, y, this.width - EDGE.right, y);
      g.fillText(short(n * step), EDGE.left - 8, y);
    }
    g.textAlign = "center";
    const span = this.end - this.start;
    const ticks = Math.max(2, (this.width - EDGE.left) / 110);
    const every = TIME_STEPS.find((s) => s >= span / ticks) ?? 86400 * Math.ceil(span / ticks / 86400);
    const zone = new Date(this.start * 1000).getTimezoneOffset() * 60;
    for (let t = Math.ceil((this.start - zone) / every) * every + zone; t <= this.end; t += every) {
      const x = Math.round(this.x(t)) + 0.5;
      this.stroke(x, EDGE.top, x, this.height - EDGE.bottom);
      g.fillText(clock(t, { date: every >= 43200, second: every < 60 }), x, this.height - EDGE.bottom + 14);
    }
  }

  stroke(x1, y1, x2, y2) {
    this.g.beginPath();
    this.g.moveTo(x1, y1);
    this.g.lineTo(x2, y2);
    this.g.stroke();
  }

  /** A step without a value, or one that is no number, interrupts the line. */
  line({ points, color }) {
    const { g } = this;
    g.strokeStyle = g.fillStyle = color;
    g.lineWidth = 1.6;
    g.lineJoin = "round";
    g.beginPath();
    let last = null, length = 0;
    const end = () => {
      if (length === 1) g.rect(this.x(last[0]) - 1.5, this.y(last[1]) - 1.5, 3, 3);
      length = 0;
    };
    for (const point of points) {
      if (!Number.isFinite(point[1])) { end(); last = null; continue; }
      const joined = last !== null && point[0] - last[0] < this.step * 1.5;
      if (!joined) end();
      g[joined ? "lineTo" : "moveTo"](this.x(point[0]), this.y(point[1]));
      last = point;
      length++;
    }
    end();
    g.stroke();
  }

  /** Move the cursor to a place on the canvas; null takes it away. */
  hover(x, y = null) {
    const last = Math.round((this.end - this.start) / this.step);
    this.at = x === null || !this.lines.length ? null
      : Math.min(last, Math.max(0, Math.round((this.timeAt(x) - this.start) / this.step)));
    this.pointer = y;
    this.tip.hidden = this.at === null;
    this.draw();
  }

  /** Arrow keys move the cursor by a step. */
  move(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const at = this.at ?? (by > 0 ? -1 : Math.round((this.end - this.start) / this.step) + 1);
    this.hover(this.x(this.start + (at + by) * this.step));
  }

  cursor() {
    const { g, colors } = this;
    const time = this.start + this.at * this.step;
    const x = Math.round(this.x(time)) + 0.5;
    g.strokeStyle = colors.soft;
    g.lineWidth = 1;
    this.stroke(x, EDGE.top, x, this.height - EDGE.bottom);
    const found = [];
    for (const line of this.shown) {
      const point = line.points.find(([t]) => Math.abs(t - time) < this.step / 2);
      if (!point) continue;
      found.push({ line, value: point[1], y: this.y(point[1]) });
      if (!Number.isFinite(point[1])) continue;
      g.fillStyle = line.color;
      g.beginPath();
      g.arc(x, this.y(point[1]), 3.5, 0, 2 * Math.PI);
      g.fill();
    }
    this.describe(time, found, x);
  }

  describe(time, found, x) {
    const away = (item) => Math.abs(item.y - (this.pointer ?? item.y));
    const near = found.reduce((best, item) => (best && away(best) <= away(item) ? best : item), null);
    found.sort((a, b) => away(a) - away(b));
    const rows = found.slice(0, TIP_ROWS).sort((a, b) => b.value - a.value).map((item) => {
      const row = document.createElement("div");
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.style.background = item.line.color;
      if (item === near && found.length > 1) row.className = "near";
      row.append(dot, `${short(item.value)}  ${item.line.name}`);
      return row;
    });
    const head = document.createElement("div");
    const more = found.length - rows.length;
    head.textContent = clock(time, { date: true, second: true })
      + (found.length ? "" : " — no data") + (more > 0 ? ` — ${more} more series` : "");
    this.tip.replaceChildren(head, ...rows);
    const left = x < this.width / 2;
    this.tip.style.left = left ? `${x + 14}px` : "auto";
    this.tip.style.right = left ? "auto" : `${this.width - x + 14}px`;
    this.tip.style.top = `${EDGE.top + 6}px`;
  }
}
