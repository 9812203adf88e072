
"use strict";
(() => {
  // Colours: 33 stops of matplotlib's magma and viridis; what is below or above a scale, and equals
  // the choice of repsim.plot.
  const STOPS = {
    magma:
      "0000040303120a0822130d341d114729115a36106b440f7651127c5d177f6a1c81762181832681902a819c2e7f" +
      "aa337db73779c43c75d0416fdc4869e75263ef5d5ef56b5cf9795dfc8961fd9869fea772feb67cfec488fed395" +
      "fde2a3fcf0b2fcfdbf",
    viridis:
      "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e" +
      "23898e21918c1f988b1fa08822a78528ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23" +
      "d8e219ece51bfde725",
  };
  const BEYOND = { magma: ["#4f9dac", "#5aae61"], viridis: ["#b39ddb", "#f4a6c0"] };
  const SLACK = 1e-5; // part of the scale by which rounding may miss its ends
  const FADE = 0.5; // part of the scale over which its lowest colour fades into that below it

  const stops = {};
  const beyond = {};
  for (const [name, hex] of Object.entries(STOPS)) {
    stops[name] = hex.match(/.{6}/g).map(rgb);
    stops[`${name}_r`] = [...stops[name]].reverse();
    beyond[name] = beyond[`${name}_r`] = BEYOND[name].map(rgb);
  }

  function rgb(hex) {
    const n = parseInt(hex.replace("#", ""), 16);
    return [n >> 16, (n >> 8) & 255, n & 255];
  }

  function ramp(name, t) {
    const at = Math.min(1, Math.max(0, t)) * (stops[name].length - 1);
    const k = Math.min(Math.floor(at), stops[name].length - 2);
    return stops[name][k].map((c, i) => Math.round(c + (at - k) * (stops[name][k + 1][i] - c)));
  }

  // The colour of a value that is t times the length of the scale above its lower end. Noise of an
  // unbiased estimate lies a little below 0 too, so the colours change slowly there.
  function colourAt(name, t) {
    const [under, over] = beyond[name];
    if (t > 1 + SLACK) return over;
    if (t >= 0) return ramp(name, t);
    const share = Math.min(1, -t / FADE) ** 2;
    return stops[name][0].map((c, i) => Math.round(c + share * (under[i] - c)));
  }

  const css = (colour) => `rgb(${colour.join(",")})`;
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = () => parseInt(variable("--card").slice(1, 3), 16) < 128;
  const gradient = (colours) => `linear-gradient(to right, ${colours.map(css).join(", ")})`;

  // Elements: text is always set as text, so that no name can be markup.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") made.className = value;
      else if (key in made && typeof value !== "string") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function drawn(tag, attributes = {}, text = null) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  // A colour bar with its ends, after the fade down to the least value if that lies below.
  function colourBar(name, low, high, least, sign = "") {
    const part = Math.min(FADE, -least);
    const bar = element("span", { class: "ramp" });
    bar.style.background = gradient(stops[name]);
    const text = (v, before = "") => element("span", {}, before + number(v, 2));
    const row = element("span", { class: "scale" }, text(low, sign), bar, text(high));
    if (part > SLACK) {
      const fade = element("span", { class: "ramp fade" });
      fade.style.setProperty("--part", part);
      const parts = Array.from({ length: 9 }, (_, k) => part * (k / 8 - 1));
      fade.style.background = gradient(parts.map((t) => colourAt(name, t)));
      row.prepend(text(low - part * (high - low)), fade);
    }
    return row;
  }

  function sample(colour, text) {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = colour;
    return element("span", {}, swatch, text);
  }

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  function floats(text) {
    const raw = bytes(text);
    const view = new DataView(raw.buffer);
    return Float32Array.from({ length: raw.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  }

  function number(value, digits = 4) {
    if (value === null || Number.isNaN(value)) return "undefined";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    let text;
    if (size !== 0 && (size < 0.001 || size >= 1e6)) {
      const [digit, power] = value.toExponential(1).split("e");
      const raised = Array.from(String(Number(power)), (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");
      return `${digit} × 10${raised}`.replace("-", "−");
    }
    // Two significant digits, where a fixed number of decimals would leave fewer.
    else if (size !== 0 && size < 10 ** (1 - digits)) text = String(Number(value.toPrecision(2)));
    else if (size >= 100) text = value.toFixed(1);
    else text = value.toFixed(digits);
    if (Number(text) === 0) text = text.replace("-", "");
    return text.replace("-", "−");
  }

  const short = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

  // Ticks: 1, 2 or 5 times a power of ten.
  function ticks(low, high, count) {
    const rough = (high - low) / Math.max(1, count);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
    const out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) {
      out.push(Number((k * step).toPrecision(12)));
    }
    return out;
  }

  // A name shortened from its front: the end of a layer's name tells more.
  function fitted(text, width, measure) {
    if (measure(text) <= width) return text;
    const letters = Array.from(text);
    for (let k = 1; k < letters.length; k++) {
      const short = "…" + letters.slice(k).join("");
      if (measure(short) <= width) return short;
    }
    return "";
  }

  class Tip {
    constructor(stage) {
      this.stage = stage;
      this.box = element("div", { class: "tip", role: "status", "aria-live": "polite" });
      this.box.hidden = true;
      stage.append(this.box);
    }

    show(x, y, lines) {
      this.box.replaceChildren(...lines);
      this.box.hidden = false;
      const width = this.box.offsetWidth;
      const height = this.box.offsetHeight;
      const room = this.stage.clientWidth;
      let left = x + 14;
      if (left + width > room) left = x - width - 14;
      left = Math.max(0, Math.min(left, room - width));
      let top = y - height - 12;
      if (this.stage.getBoundingClientRect().top + top < 4) top = y + 18;
      this.box.style.left = `${left}px`;
      this.box.style.top = `${top}px`;
    }

    hide() {
      this.box.hidden = true;
    }
  }

  const strong = (text) => element("div", {}, element("strong", {}, text));
  const line = (label, text) =>
    element("div", {}, ...(label ? [element("span", {}, `${label} `)] : []), text);

  function choice(controls, label, options, change) {
    const select = element("select");
    options.forEach((text, i) => select.append(element("option", { value: String(i) }, text)));
    select.addEventListener("change", () => change(Number(select.value)));
    controls.append(element("label", {}, label, select));
    return select;
  }

  function button(parent, text, label, press) {
    const made = element("button", { type: "button", "aria-label": label, title: label }, text);
    made.addEventListener("click", press);
    parent.append(made);
    return made;
  }

  // The table that says what a picture draws is made when it is first asked for.
  function tabled(figure, make) {
    const details = figure.querySelector("details.data");
    const fill = () => {
      if (!details.open) return;
      const { head, rows } = make();
      const top = element("tr", {}, ...head.map((h) => element("th", { scope: "col" }, h)));
      const body = rows.map(([first, ...rest]) =>
        element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((v) => element("td", {}, v))),
      );
      details
        .querySelector(".scroll")
        .replaceChildren(element("table", {}, element("thead", {}, top), element("tbody", {}, ...body)));
    };
    details.addEventListener("toggle", fill);
    return fill;
  }

  function save(name, head, rows) {
    const cell = (v) => (/[",\n\r]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v);
    const text = [head, ...rows].map((row) => row.map((v) => cell(String(v))).join(",")).join("\r\n");
    const link = element("a", { download: name });
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const redraws = [];

  // ---------------------------------------------------------------- maps of layers by layers

  function layerMap(figure, data) {
    const controls = figure.querySelector(".controls");
    const stage = figure.querySelector(".stage");
    const m = data.rows.length;
    const n = data.columns.length;
    const variables = data.variables.map((each) => {
      const values = floats(each.values);
      let low = Infinity;
      let high = -Infinity;
      for (const v of values) {
        if (Number.isFinite(v)) {
          low = Math.min(low, v);
          high = Math.max(high, v);
        }
      }
      if (low === high && each.low !== null && each.low < low) low = each.low;
      if (!(low < high)) [low, high] = low === high ? [low - 0.5, low + 0.5] : [0, 1];
      return { ...each, values, least: low, most: high };
    });
    const state = { shown: 0, order: 0, fit: false, grey: false, cell: null, box: null };
    let view = { r0: 0, r1: m, c0: 0, c1: n };
    const place = { x: 0, y: 0, w: 1, h: 1 };
    const image = element("canvas");
    image.width = n;
    image.height = m;

    const canvas = element("canvas", {
      class: "map",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "layer map",
      "aria-label": `${figure.dataset.alt} Arrow keys move from cell to cell, plus and minus zoom, 0 shows all.`,
    });
    const legend = element("div", { class: "legend" });
    stage.replaceChildren(canvas);
    stage.before(legend);
    const tip = new Tip(stage);
    stage.after(
      element(
        "p",
        { class: "help" },
        "Hover or tap for values; drag a box, pinch or use the buttons to zoom, Shift-drag to move.",
      ),
    );
    figure.toggleAttribute("data-wide", n > 90);

    const current = () => variables[state.shown];
    const order = () => data.orders[state.order];
    const at = (each, i, j) => each.values[order().rows[i] * n + order().columns[j]];
    const fill = tabled(figure, () => ({
      head: [`${data.rowTitle} / ${data.columnTitle}`, ...order().columns.map((j) => data.columns[j])],
      rows: order().rows.map((row, i) => [
        data.rows[row],
        ...order().columns.map((_, j) => number(at(current(), i, j), 3)),
      ]),
    }));

    if (variables.length > 1) {
      choice(controls, "Show", variables.map((each) => each.label), (k) => {
        state.shown = k;
        paint();
      });
    }
    choice(controls, "Order", data.orders.map((each) => each.label), (k) => {
      state.order = k;
      state.cell = null;
      tip.hide();
      paint();
    });
    const scale = choice(controls, "Colours", ["", "fitted to the data"], (k) => {
      state.fit = k === 1;
      paint();
    });
    if (data.threshold) {
      const box = element("input", { type: "checkbox" });
      box.addEventListener("change", () => {
        state.grey = box.checked;
        paint();
      });
      controls.append(element("label", { class: "check" }, box, `grey: ${data.threshold[3]}`));
    }
    const buttons = element("div", { class: "buttons", role: "group", "aria-label": "Zoom" });
    controls.append(buttons);
    button(buttons, "+", "Zoom in", () => zoom(1 / 1.6));
    button(buttons, "−", "Zoom out", () => zoom(1.6));
    button(buttons, "whole", "Show the whole map", whole);
    button(buttons, "CSV", "Save the values as CSV", () => {
      const rows = [];
      order().rows.forEach((row, i) =>
        order().columns.forEach((column, j) =>
          rows.push([
            data.rows[row],
            data.columns[column],
            ...variables.map((each) => {
              const v = at(each, i, j);
              return Number.isFinite(v) ? Number(v.toPrecision(7)) : "";
            }),
          ]),
        ),
      );
      save("map.csv", [data.rowTitle, data.columnTitle, ...variables.map((v) => v.label)], rows);
    });

    function ends() {
      const each = current();
      const free = state.fit || each.low === null;
      return [
        free || each.low === null ? each.least : each.low,
        free || each.high === null ? each.most : each.high,
      ];
    }

    function greyed(i, j) {
      if (!state.grey || !data.threshold) return false;
      const [which, side, level] = data.threshold;
      const v = at(variables[which], i, j);
      return side === "least" ? !(v >= level) : !(v <= level);
    }

    // Each cell is one pixel of an image, which is then drawn larger, unsmoothed.
    function paint() {
      const each = current();
      const [low, high] = ends();
      const context = image.getContext("2d");
      const pixels = context.createImageData(n, m);
      const chance = rgb(variable("--chance"));
      const found = { least: 0, over: false, grey: false, undefined: false };
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          const v = at(each, i, j);
          const k = 4 * ((m - 1 - i) * n + j); // the first row is the lowest
          if (Number.isNaN(v)) {
            found.undefined = true;
            continue;
          }
          let colour;
          if (greyed(i, j)) {
            colour = chance;
            found.grey = true;
          } else {
            const t = (v - low) / (high - low);
            colour = colourAt(each.colours, t);
            found.least = Math.min(found.least, t);
            found.over ||= t > 1 + SLACK;
          }
          pixels.data.set([...colour, 255], k);
        }
      }
      context.putImageData(pixels, 0, 0);
      scale.disabled = each.low === null;
      scale.options[0].textContent =
        each.low === null
          ? "fitted to the data"
          : `from ${short(each.low)} to ${each.high === null ? "the largest" : short(each.high)}`;
      explain(each, low, high, found);
      fill();
      draw();
    }

    function explain(each, low, high, found) {
      const least = low - FADE * (high - low);
      legend.replaceChildren(colourBar(each.colours, low, high, found.least));
      const note = (colour, text) => legend.append(sample(colour, text));
      const [under, over] = beyond[each.colours].map(css);
      if (found.least < -FADE - SLACK) note(under, `below ${number(least, 2)}`);
      if (found.over) note(over, `above ${number(high, 2)}`);
      if (found.grey) note("var(--chance)", data.threshold[3]);
      if (found.undefined) {
        note(
          "repeating-linear-gradient(135deg, var(--undefined) 0 3px, var(--undefined-line) 3px 4px)",
          "undefined (NaN)",
        );
      }
    }

    function hatch(context) {
      const tile = element("canvas");
      tile.width = tile.height = 8;
      const c = tile.getContext("2d");
      c.fillStyle = variable("--undefined");
      c.fillRect(0, 0, 8, 8);
      c.strokeStyle = variable("--undefined-line");
      c.beginPath();
      for (const d of [-8, 0, 8]) {
        c.moveTo(d - 1, 9);
        c.lineTo(d + 9, -1);
      }
      c.stroke();
      return context.createPattern(tile, "repeat");
    }

    function draw() {
      const context = canvas.getContext("2d");
      const room = Math.max(220, stage.clientWidth);
      const size = room < 480 ? 10.5 : 11.5;
      const font = `${size}px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif`;
      context.font = font;
      const measure = (text) => context.measureText(text).width;
      const longest = (names) => names.reduce((most, name) => Math.max(most, measure(name)), 0);
      const aside = Math.min(longest(data.rows) + 8, room * 0.27, 150);
      const below = Math.min(longest(data.columns) + 8, room * 0.27, 130);
      const left = aside + 20;
      const square = Math.max(m, n) <= 2 * Math.min(m, n);
      const tall = Math.min(760, Math.max(window.innerHeight * 0.82, 320));
      let width = room - left - 6;
      let height = square ? (width * m) / n : Math.min(tall, Math.max(140, Math.min(width, 15 * m)));
      if (height > tall) {
        if (square) width *= tall / height;
        height = tall;
      }
      // Small maps need no large cells.
      const most = 46;
      if (square && width / n > most) {
        width = most * n;
        height = most * m;
      }
      place.x = left;
      place.y = 6;
      place.w = Math.round(width);
      place.h = Math.round(height);
      const wide = left + place.w + 6;
      const high = place.h + below + 32;
      const density = Math.max(2, window.devicePixelRatio || 1);
      canvas.width = Math.round(wide * density);
      canvas.height = Math.round(high * density);
      canvas.style.width = `${wide}px`;
      canvas.style.height = `${high}px`;
      context.setTransform(density, 0, 0, density, 0, 0);
      context.clearRect(0, 0, wide, high);

      context.fillStyle = hatch(context);
      context.fillRect(place.x, place.y, place.w, place.h);
      context.imageSmoothingEnabled = false;
      const { r0, r1, c0, c1 } = view;
      context.drawImage(image, c0, m - r1, c1 - c0, r1 - r0, place.x, place.y, place.w, place.h);
      context.strokeStyle = variable("--soft");
      context.lineWidth = 0.8;
      context.strokeRect(place.x, place.y, place.w, place.h);

      context.font = font;
      context.textBaseline = "middle";
      name(context, measure, size, aside, below);
      const titles = [data.rowTitle, data.columnTitle];
      context.font = font.replace(/^\S+/, `600 ${size}px`);
      context.fillStyle = variable("--text");
      context.textAlign = "center";
      context.fillText(fitted(titles[1], place.w, measure), place.x + place.w / 2, place.y + place.h + below + 16);
      context.save();
      context.translate(8, place.y + place.h / 2);
      context.rotate(-Math.PI / 2);
      context.fillText(fitted(titles[0], place.h, measure), 0, 0);
      context.restore();

      if (state.cell) mark(context);
      if (state.box) {
        const { x0, y0, x1, y1 } = state.box;
        context.strokeStyle = "#fff";
        context.lineWidth = 3;
        context.strokeRect(x0, y0, x1 - x0, y1 - y0);
        context.strokeStyle = "#000";
        context.lineWidth = 1;
        context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
      canvas.toggleAttribute("data-zoomed", r1 - r0 < m || c1 - c0 < n);
      // Where the cells are, for whoever wants to point at one.
      canvas.dataset.place = JSON.stringify({ ...place, ...view, order: state.order });
    }

    // As many names as have room, the first and the last of those in view among them.
    function name(context, measure, size, aside, below) {
      const { r0, r1, c0, c1 } = view;
      const sides = [
        { from: r0, to: r1, length: place.h, names: order().rows.map((i) => data.rows[i]) },
        { from: c0, to: c1, length: place.w, names: order().columns.map((j) => data.columns[j]) },
      ];
      context.fillStyle = variable("--soft");
      context.strokeStyle = variable("--soft");
      sides.forEach(({ from, to, length, names }, side) => {
        const cell = length / (to - from);
        const first = Math.ceil(from - 0.5);
        const last = Math.min(names.length - 1, Math.floor(to - 0.5));
        const step = Math.max(1, Math.ceil((size + 2) / cell));
        const wanted = [];
        for (let k = first; k <= last; k += step) wanted.push(k);
        if (wanted.length > 1 && wanted.at(-1) !== last) {
          if ((last - wanted.at(-1)) * cell < size + 2) wanted.pop();
          wanted.push(last);
        }
        for (const k of wanted) {
          const along = (k + 0.5 - from) * cell;
          context.save();
          context.textAlign = "right";
          if (side === 0) {
            const y = place.y + place.h - along;
            context.fillRect(place.x - 3, y - 0.3, 3, 0.6);
            context.fillText(fitted(names[k], aside - 6, measure), place.x - 6, y);
          } else {
            const x = place.x + along;
            context.fillRect(x - 0.3, place.y + place.h, 0.6, 3);
            context.translate(x, place.y + place.h + 6);
            context.rotate(-Math.PI / 2);
            context.fillText(fitted(names[k], below - 6, measure), 0, 0);
          }
          context.restore();
        }
      });
    }

    const cellWidth = () => place.w / (view.c1 - view.c0);
    const cellHeight = () => place.h / (view.r1 - view.r0);
    const corner = ({ i, j }) => [
      place.x + (j - view.c0) * cellWidth(),
      place.y + place.h - (i + 1 - view.r0) * cellHeight(),
    ];

    function mark(context) {
      const [x, y] = corner(state.cell);
      context.save();
      context.beginPath();
      context.rect(place.x, place.y, place.w, place.h);
      context.clip();
      context.globalAlpha = 0.35;
      context.fillStyle = "#fff";
      context.fillRect(place.x, y + cellHeight() / 2 - 0.5, x - place.x, 1);
      context.fillRect(x + cellWidth() / 2 - 0.5, y + cellHeight(), 1, place.y + place.h - y);
      context.globalAlpha = 1;
      const least = 5;
      const w = Math.max(cellWidth(), least);
      const h = Math.max(cellHeight(), least);
      const x0 = x + (cellWidth() - w) / 2;
      const y0 = y + (cellHeight() - h) / 2;
      context.restore();
      context.lineWidth = 3;
      context.strokeStyle = "#000";
      context.strokeRect(x0, y0, w, h);
      context.lineWidth = 1.4;
      context.strokeStyle = "#fff";
      context.strokeRect(x0, y0, w, h);
    }

    function cellAt(x, y) {
      if (x < place.x || y < place.y || x >= place.x + place.w || y >= place.y + place.h) return null;
      const i = Math.floor(view.r0 + (place.y + place.h - y) / cellHeight());
      const j = Math.floor(view.c0 + (x - place.x) / cellWidth());
      return i >= 0 && j >= 0 && i < m && j < n ? { i, j } : null;
    }

    function point(cell) {
      const same = cell && state.cell && cell.i === state.cell.i && cell.j === state.cell.j;
      state.cell = cell;
      if (!same) draw();
      if (!cell) {
        tip.hide();
        return;
      }
      const { i, j } = cell;
      const lines = variables.map((each, k) => {
        const text = number(at(each, i, j), k === state.shown || each.high === 1 ? 4 : 3);
        return k === state.shown ? strong(text) : line(each.label, text);
      });
      lines.unshift(...lines.splice(state.shown, 1));
      lines.push(
        line(data.rowTitle, data.rows[order().rows[i]]),
        line(data.columnTitle, data.columns[order().columns[j]]),
      );
      if (greyed(i, j)) lines.push(line("", data.threshold[3]));
      const [x, y] = corner(cell);
      tip.show(x + cellWidth() / 2, y + cellHeight() / 2, lines);
    }

    function look(r0, r1, c0, c1) {
      const span = (from, to, size) => {
        const wide = Math.min(size, Math.max(Math.min(size, 3), to - from));
        const start = Math.min(Math.max(0, from + (to - from - wide) / 2), size - wide);
        return [start, start + wide];
      };
      const [ra, rb] = span(r0, r1, m);
      const [ca, cb] = span(c0, c1, n);
      view = { r0: ra, r1: rb, c0: ca, c1: cb };
      draw();
    }

    function zoom(factor, row = null, column = null) {
      const { r0, r1, c0, c1 } = view;
      const y = row ?? (state.cell ? state.cell.i + 0.5 : (r0 + r1) / 2);
      const x = column ?? (state.cell ? state.cell.j + 0.5 : (c0 + c1) / 2);
      look(y - (y - r0) * factor, y + (r1 - y) * factor, x - (x - c0) * factor, x + (c1 - x) * factor);
      if (state.cell) point(state.cell);
    }

    function whole() {
      tip.hide();
      state.cell = null;
      look(0, m, 0, n);
    }

    // Pointers: one hovers, drags a box or (Shift, or a finger when zoomed) moves; two pinch.
    const pointers = new Map();
    let drag = null;
    const local = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const rowAt = (y) => view.r0 + (place.y + place.h - y) / cellHeight();
    const columnAt = (x) => view.c0 + (x - place.x) / cellWidth();
    const zoomed = () => canvas.hasAttribute("data-zoomed");

    function pinch() {
      const [a, b] = [...pointers.values()];
      return {
        x: (a.x + b.x) / 2,
        y: (a.y + b.y) / 2,
        apart: Math.max(10, Math.hypot(a.x - b.x, a.y - b.y)),
      };
    }

    canvas.addEventListener("pointerdown", (event) => {
      const p = local(event);
      pointers.set(event.pointerId, p);
      canvas.setPointerCapture(event.pointerId);
      if (pointers.size === 2) {
        const start = pinch();
        drag = { kind: "pinch", start, row: rowAt(start.y), column: columnAt(start.x), view: { ...view } };
        point(null);
      } else if (pointers.size === 1 && event.button === 0) {
        const move = event.shiftKey || (event.pointerType === "touch" && zoomed());
        const kind = move ? "move" : event.pointerType === "touch" ? "tap" : "box";
        drag = { kind, start: p, view: { ...view }, moved: false };
      }
    });
    canvas.addEventListener("pointermove", (event) => {
      const p = local(event);
      if (pointers.has(event.pointerId)) pointers.set(event.pointerId, p);
      if (!drag) {
        point(cellAt(p.x, p.y));
        return;
      }
      if (drag.kind === "pinch") {
        if (pointers.size < 2) return;
        const now = pinch();
        const factor = drag.start.apart / now.apart;
        const height = (drag.view.r1 - drag.view.r0) * factor;
        const width = (drag.view.c1 - drag.view.c0) * factor;
        const r0 = drag.row - ((place.y + place.h - now.y) / place.h) * height;
        const c0 = drag.column - ((now.x - place.x) / place.w) * width;
        look(r0, r0 + height, c0, c0 + width);
        return;
      }
      drag.moved ||= Math.hypot(p.x - drag.start.x, p.y - drag.start.y) > 5;
      if (!drag.moved) return;
      if (drag.kind === "tap") point(cellAt(p.x, p.y));
      else if (drag.kind === "move") {
        const rows = (p.y - drag.start.y) / cellHeight();
        const columns = (p.x - drag.start.x) / cellWidth();
        const was = drag.view;
        look(was.r0 + rows, was.r1 + rows, was.c0 - columns, was.c1 - columns);
        if (state.cell) point(null);
      } else {
        const inside = (v, from, length) => Math.min(Math.max(v, from), from + length);
        state.box = {
          x0: inside(Math.min(p.x, drag.start.x), place.x, place.w),
          x1: inside(Math.max(p.x, drag.start.x), place.x, place.w),
          y0: inside(Math.min(p.y, drag.start.y), place.y, place.h),
          y1: inside(Math.max(p.y, drag.start.y), place.y, place.h),
        };
        point(null);
        draw();
      }
    });
    const release = (event) => {
      pointers.delete(event.pointerId);
      if (!drag || drag.kind === "pinch") {
        if (pointers.size === 0) drag = null;
        return;
      }
      const { box } = state;
      state.box = null;
      const { kind, moved, start } = drag;
      drag = null;
      if (event.type === "pointercancel") draw();
      else if (!moved) point(cellAt(start.x, start.y));
      else if (kind === "box" && box && box.x1 - box.x0 > 6 && box.y1 - box.y0 > 6) {
        look(rowAt(box.y1), rowAt(box.y0), columnAt(box.x0), columnAt(box.x1));
      } else draw();
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !drag && document.activeElement !== canvas) point(null);
    });
    canvas.addEventListener("blur", () => point(null));
    canvas.addEventListener("dblclick", whole);
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
        event.preventDefault();
        const p = local(event);
        zoom(Math.exp(Math.max(-40, Math.min(40, event.deltaY)) / 100), rowAt(p.y), columnAt(p.x));
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in step) {
        const cell = state.cell ?? {
          i: Math.floor(view.r0) - step[event.key][0],
          j: Math.floor(view.c0) - step[event.key][1],
        };
        const pace = event.shiftKey ? 10 : 1;
        const i = Math.min(m - 1, Math.max(0, cell.i + pace * step[event.key][0]));
        const j = Math.min(n - 1, Math.max(0, cell.j + pace * step[event.key][1]));
        const down = Math.min(0, i - view.r0) + Math.max(0, i + 1 - view.r1);
        const right = Math.min(0, j - view.c0) + Math.max(0, j + 1 - view.c1);
        if (down || right) look(view.r0 + down, view.r1 + down, view.c0 + right, view.c1 + right);
        point({ i, j });
      } else if (event.key === "+" || event.key === "=") zoom(1 / 1.6);
      else if (event.key === "-") zoom(1.6);
      else if (event.key === "0") whole();
      else if (event.key === "Escape") point(null);
      else return;
      event.preventDefault();
    });

    redraws.push(paint);
    paint();
    return draw;
  }

  // ---------------------------------------------------------------- curves and points

  function chart(figure, data) {
    const stage = figure.querySelector(".stage");
    const svg = drawn("svg", { role: "img", "aria-label": figure.dataset.alt });
    const legend = element("ul", { class: "legend" });
    stage.replaceChildren(svg);
    stage.before(legend);
    const tip = new Tip(stage);
    const { series, categories } = data;
    const percent = (v, digits) => `${(100 * v).toFixed(digits)}%`;
    const text = (v, digits = 3) => (data.percent ? percent(v, 1) : number(v, digits));
    const placed = (v) => (Number.isInteger(v) ? String(v) : number(v, 2));
    const many = series.filter((each) => each.at !== null).length > 8;

    function colours() {
      let next = 0;
      const [from, to] = dark() ? [0.3, 1] : [0, 0.85];
      return series.map((each) =>
        each.reference ? "var(--soft)" : each.at === null ? `var(--s${next++ % 6})` : css(ramp("viridis", from + (to - from) * each.at)),
      );
    }

    tabled(figure, () => {
      const bands = series.some((each) => each.low);
      const rows = [];
      series.forEach((each) =>
        each.y.forEach((y, k) => {
          const x = categories ? categories[each.x[k]] : data.percent && data.diagonal ? text(each.x[k]) : placed(each.x[k]);
          const named = each.names ? each.names[k] : x;
          const row = [named, each.name, y === null ? "undefined" : text(y)];
          if (!categories) row.splice(1, 0, x);
          if (bands) {
            const range = each.low && each.low[k] !== null;
            row.push(range ? `${text(each.low[k])} to ${text(each.high[k])}` : "");
          }
          if (series.some((s) => s.values)) row.push(each.values ? each.values[k] : "");
          rows.push(row);
        }),
      );
      const head = [data.xLabel, "series", data.yLabel];
      if (!categories) head.splice(0, 1, "point", data.xLabel);
      if (bands) head.push("band");
      if (series.some((s) => s.values)) head.push("");
      return { head, rows };
    });

    let points = [];
    let mark = null;

    function draw() {
      const palette = colours();
      const room = Math.max(240, stage.clientWidth);
      const height = Math.max(250, Math.min(360, room * 0.62));
      svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${room} ${height + below()}`);
      svg.setAttribute("width", room);
      svg.setAttribute("height", height + below());
      const probe = document.createElement("canvas").getContext("2d");
      probe.font = "12px system-ui, sans-serif";
      const measure = (t) => probe.measureText(t).width;

      const values = [];
      series.forEach((each) =>
        [each.y, each.low, each.high].forEach((list) => list && values.push(...list.filter((v) => v !== null))),
      );
      data.references.forEach(([y]) => y !== null && values.push(y));
      const log = data.log && values.every((v) => v > 0);
      let low = Math.min(...values);
      let high = Math.max(...values);
      if (!values.length) [low, high] = [0, 1];
      if (data.zero && !log && low > 0) low = 0;
      if (data.reach !== null) high = Math.max(high, data.reach);
      if (data.diagonal) [low, high] = [0, 1];
      if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
      if (log) [low, high] = [low / 1.12, high * 1.12];
      else if (!data.diagonal) {
        const pad = 0.05 * (high - low);
        if (low !== 0 || !data.zero) low -= pad;
        high = data.percent && high <= 1 ? Math.min(high + pad, 1) : high + pad;
      } else [low, high] = [-0.03, 1.03];
      const scale = log ? Math.log : (v) => v;
      let levels = log ? logTicks(low, high) : ticks(Math.max(low, data.diagonal ? 0 : low), data.diagonal ? 1 : high, height / 42);
      const step = levels.length > 1 ? Math.abs(levels[1] - levels[0]) : 1;
      const digits = Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9)));
      const label = (v) =>
        data.percent ? percent(v, Math.max(0, digits - 2))
          : log ? String(v)
          : step < 1e-4 ? (v === 0 ? "0" : number(v))
          : v.toFixed(digits).replace("-", "−");
      const left = Math.max(...levels.map((v) => measure(label(v)))) + 30;
      const place = { x: left, y: 8, w: room - left - 10, h: height - 16 };
      const yAt = (v) => place.y + place.h * (1 - (scale(v) - scale(low)) / (scale(high) - scale(low)));

      const xs = series.flatMap((each) => each.x).filter((v) => v !== null);
      let x0 = categories ? -0.5 : Math.min(...xs);
      let x1 = categories ? categories.length - 0.5 : Math.max(...xs);
      if (data.diagonal) [x0, x1] = [-0.03, 1.03];
      else if (!categories) {
        const pad = 0.04 * (x1 - x0 || 1);
        [x0, x1] = [x0 - pad, x1 + pad];
      }
      // As matplotlib's symlog: linear up to `from`, then logarithmic.
      const from = data.logFrom;
      const along = (v) => (from === null ? v : v <= from ? v / from : 1 + Math.log10(v / from));
      if (from !== null) {
        const pad = 0.04 * (along(Math.max(...xs)) - along(Math.min(...xs)));
        [x0, x1] = [along(Math.min(...xs)) - pad, along(Math.max(...xs)) + pad];
      }
      const xAt = (v) => place.x + (place.w * (along(v) - x0)) / (x1 - x0);

      for (const v of levels) {
        svg.append(drawn("path", { class: "grid", d: `M${place.x} ${yAt(v)}h${place.w}` }));
        svg.append(drawn("text", { x: left - 6, y: yAt(v) + 4, "text-anchor": "end" }, label(v)));
      }
      svg.append(drawn("path", { class: "axis", d: `M${place.x} ${place.y}v${place.h}h${place.w}` }));
      if (data.diagonal) {
        svg.append(drawn("path", { class: "reference", d: `M${xAt(0)} ${yAt(0)}L${xAt(1)} ${yAt(1)}` }));
      }
      const title = drawn("text", { x: -(place.y + place.h / 2), y: 12, "text-anchor": "middle", transform: "rotate(-90)" });
      title.textContent = fitted(data.yLabel, place.h + 14, measure);
      svg.append(title);
      const base = place.y + place.h;
      if (categories) {
        const every = Math.ceil(15 / (place.w / categories.length));
        categories.forEach((name, k) => {
          const final = k === categories.length - 1;
          if (k % every && !final) return;
          if (!final && k + every > categories.length - 1 && (categories.length - 1 - k) * (place.w / categories.length) < 15) return;
          const x = xAt(k) + 4;
          svg.append(drawn("text", { x: -(base + 6), y: x, "text-anchor": "end", transform: "rotate(-90)" }, fitted(name, below() - 34, measure)));
        });
      } else if (from !== null) {
        for (const v of apart([...new Set(xs)].sort((a, b) => a - b), xAt, (v) => measure(String(v)) + 8)) {
          svg.append(drawn("text", { x: xAt(v), y: base + 18, "text-anchor": "middle" }, String(v)));
        }
      } else {
        for (const v of ticks(data.diagonal ? 0 : x0, data.diagonal ? 1 : x1, Math.max(3, room / 90))) {
          svg.append(drawn("text", { x: xAt(v), y: base + 18, "text-anchor": "middle" }, data.diagonal ? percent(v, 0) : String(v)));
        }
      }
      const xTitle = fitted(data.xLabel, room - 4, measure);
      const half = measure(xTitle) / 2 + 2;
      const middle = Math.max(half, Math.min(place.x + place.w / 2, room - half));
      svg.append(drawn("text", { x: middle, y: height + below() - 8, "text-anchor": "middle" }, xTitle));

      for (const [level] of data.references) {
        if (level !== null && level >= low && level <= high) {
          svg.append(drawn("path", { class: "reference", d: `M${place.x} ${yAt(level)}h${place.w}` }));
        }
      }
      points = [];
      series.forEach((each, s) => {
        if (each.low) band(each, palette[s], xAt, yAt);
      });
      // Lines over points where both are in one picture as different series.
      const layered = [...series.keys()].sort((a, b) => Number(series[a].line) - Number(series[b].line));
      for (const s of layered) {
        const each = series[s];
        const known = each.y.map((y, k) => (y === null || each.x[k] === null ? null : [xAt(each.x[k]), yAt(y)]));
        if (each.line) {
          let d = "";
          known.forEach((p, k) => {
            if (p) d += `${k && known[k - 1] ? "L" : "M"}${p[0].toFixed(1)} ${p[1].toFixed(1)}`;
          });
          const path = drawn("path", { class: `curve${each.dashed ? " dashed" : ""}`, d });
          path.style.stroke = palette[s];
          svg.append(path);
        }
        known.forEach((p, k) => {
          if (!p) return;
          points.push({ x: p[0], y: p[1], s, k });
          const alone = each.line && !known[k - 1] && !known[k + 1];
          if (!each.points && !alone) return;
          const dot = drawn("circle", { class: "dot", cx: p[0].toFixed(1), cy: p[1].toFixed(1), r: known.length > 400 ? 2.2 : 3.1 });
          dot.style.fill = palette[s];
          svg.append(dot);
        });
      }
      mark = drawn("circle", { class: "found", r: 6, visibility: "hidden" });
      svg.append(mark);
      key(palette);
    }

    function below() {
      if (!categories) return 40;
      const probe = document.createElement("canvas").getContext("2d");
      probe.font = "12px system-ui, sans-serif";
      const longest = Math.max(...categories.map((name) => probe.measureText(name).width));
      return Math.min(longest, 120) + 36;
    }

    // The first and the last value, and those between whose labels have room.
    function apart(values, at, width) {
      const out = [values[0]];
      const last = values.at(-1);
      const clear = (a, b) => at(b) - at(a) >= (width(a) + width(b)) / 2;
      for (const v of values.slice(1, -1)) if (clear(out.at(-1), v) && clear(v, last)) out.push(v);
      return [...out, last];
    }

    function logTicks(low, high) {
      const out = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
        for (const k of high / low > 100 ? [1] : high / low > 12 ? [1, 3] : [1, 1.5, 2, 3, 5, 7]) {
          const v = Number((k * 10 ** e).toPrecision(6));
          if (v >= low && v <= high) out.push(v);
        }
      }
      return out.length > 1 ? out : [low, high].map((v) => Number(v.toPrecision(2)));
    }

    // A band may have gaps: each run of known ends is a shape of its own.
    function band(each, colour, xAt, yAt) {
      let run = [];
      const close = () => {
        if (run.length > 1) {
          const up = run.map((k) => `${xAt(each.x[k]).toFixed(1)} ${yAt(each.high[k]).toFixed(1)}`);
          const down = run.map((k) => `${xAt(each.x[k]).toFixed(1)} ${yAt(each.low[k]).toFixed(1)}`).reverse();
          const shape = drawn("path", { class: "band", d: `M${up.join("L")}L${down.join("L")}Z` });
          shape.style.fill = colour;
          svg.append(shape);
        }
        run = [];
      };
      each.y.forEach((_, k) => {
        if (each.low[k] === null || each.high[k] === null) close();
        else run.push(k);
      });
      close();
    }

    function key(palette) {
      legend.replaceChildren();
      const entry = (kind, colour, text) => {
        const swatch = element("span", { class: `swatch ${kind}` });
        if (kind === "dashed") swatch.style.color = colour;
        else swatch.style.background = colour;
        legend.append(element("li", {}, swatch, text));
      };
      const inOrder = series.filter((each) => each.at !== null);
      if (many) {
        const bar = element("span", { class: "ramp" });
        const scale = inOrder.map((each) => palette[series.indexOf(each)]);
        bar.style.background = `linear-gradient(to right, ${scale.join(", ")})`;
        legend.append(element("li", {}, `${data.ordered}: ${inOrder[0].name}`, bar, inOrder.at(-1).name));
      }
      if (series.length > 1 || data.references.length) {
        series.forEach((each, s) => {
          if (many && each.at !== null) return;
          entry(each.dashed ? "dashed" : each.line ? "line" : "dot", palette[s], each.name);
        });
      }
      data.references.forEach(([, label]) => entry("dashed", "var(--soft)", label));
    }

    function nearest(event) {
      const box = svg.getBoundingClientRect();
      const shrunk = box.width / Number(svg.getAttribute("width"));
      const x = (event.clientX - box.left) / shrunk;
      const y = (event.clientY - box.top) / shrunk;
      let best = null;
      let least = 45 ** 2;
      for (const p of points) {
        const away = (p.x - x) ** 2 + (p.y - y) ** 2;
        if (away < least) [best, least] = [p, away];
      }
      return best;
    }

    function point(event) {
      const p = nearest(event);
      if (!p) {
        off();
        return;
      }
      const each = series[p.s];
      mark.setAttribute("cx", p.x);
      mark.setAttribute("cy", p.y);
      mark.setAttribute("visibility", "visible");
      const lines = [strong(text(each.y[p.k]))];
      if (each.names) lines.push(line("", each.names[p.k]));
      else if (categories) lines.push(line("", categories[each.x[p.k]]));
      if (series.length > 1) lines.push(line("", each.name));
      if (!categories && !data.diagonal) lines.push(line(`${data.xLabel}:`, placed(each.x[p.k])));
      if (each.low && each.low[p.k] !== null) lines.push(line("band", `${text(each.low[p.k])} to ${text(each.high[p.k])}`));
      if (each.values) lines.push(line("", each.values[p.k]));
      tip.show(p.x, p.y, lines);
    }

    function off() {
      tip.hide();
      if (mark) mark.setAttribute("visibility", "hidden");
    }

    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && off());
    redraws.push(draw);
    draw();
    return draw;
  }

  // ---------------------------------------------------------------- small maps, side by side

  function tiles(figure, data) {
    const stage = figure.querySelector(".stage");
    const grid = element("div", { class: "tiles", role: "group", "aria-label": figure.dataset.alt });
    grid.toggleAttribute("data-large", data.cell !== null);
    figure.toggleAttribute("data-wide", data.tiles.length > 4 || data.cell !== null);
    const legend = element("div", { class: "legend" });
    stage.replaceChildren(grid);
    stage.before(legend);
    const tip = new Tip(stage);
    const value = (level) => {
      if (!level) return NaN;
      const t = (level - 1) / 254;
      return data.log ? data.low * (data.high / data.low) ** t : data.least + t * (data.high - data.least);
    };
    const { low, high, least } = data;
    const placed = (v) => (v - low) / (high - low);
    legend.append(
      element("span", {}, data.label),
      colourBar("magma", low, high, placed(least), data.log ? "≤ " : ""),
    );
    if (placed(least) < -FADE - SLACK) {
      legend.append(sample(css(beyond.magma[0]), `below ${number(low - FADE * (high - low), 2)}`));
    }

    const loaded = data.tiles.map((tile) => ({ ...tile, levels: bytes(tile.values) }));
    const table = Array.from({ length: 256 }, (_, level) =>
      data.log ? ramp("magma", (level - 1) / 254) : colourAt("magma", placed(value(level || 1))),
    );
    for (const tile of loaded) {
      // Between the maps of a grid runs a line one cell wide.
      const [h, w] = data.cell ?? [tile.rows, tile.columns];
      const out = (k, size) => k + Math.floor(k / size);
      const rows = tile.rows + tile.rows / h - 1;
      const columns = tile.columns + tile.columns / w - 1;
      const canvas = element("canvas", { role: "img", "aria-label": `${tile.name} ${tile.text}`.trim() });
      canvas.width = columns;
      canvas.height = rows;
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(columns, rows);
      for (let i = 0; i < tile.rows; i++) {
        for (let j = 0; j < tile.columns; j++) {
          const level = tile.levels[i * tile.columns + j];
          if (level) pixels.data.set([...table[level], 255], 4 * (out(i, h) * columns + out(j, w)));
        }
      }
      context.putImageData(pixels, 0, 0);
      const point = (event) => {
        const box = canvas.getBoundingClientRect();
        const a = Math.floor(((event.clientY - box.top) / box.height) * rows);
        const b = Math.floor(((event.clientX - box.left) / box.width) * columns);
        const inLine = (a + 1) % (h + 1) === 0 || (b + 1) % (w + 1) === 0;
        if (a < 0 || b < 0 || a >= rows || b >= columns || inLine) {
          tip.hide();
          return;
        }
        const i = a - Math.floor(a / (h + 1));
        const j = b - Math.floor(b / (w + 1));
        const lines = [strong(number(value(tile.levels[i * tile.columns + j]), 3)), line("", tile.name)];
        const pair = (r, c) => `(${r}, ${c})`;
        if (data.cell) {
          lines.push(line(`${data.words[0]} at`, pair(Math.floor(i / h), Math.floor(j / w))));
          lines.push(line(`${data.words[1]} at`, pair(i % h, j % w)));
        } else lines.push(line("cell", pair(i, j)));
        const frame = stage.getBoundingClientRect();
        tip.show(event.clientX - frame.left, event.clientY - frame.top, lines);
      };
      canvas.addEventListener("pointermove", point);
      canvas.addEventListener("pointerdown", point);
      canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && tip.hide());
      const title = element("p", {}, tile.name);
      if (tile.text) title.append(element("span", {}, tile.text));
      grid.append(element("div", { class: "tile" }, title, canvas));
    }
    tabled(figure, () => ({
      head: ["map", "", "largest", "mean", "smallest"],
      rows: loaded.map((tile) => {
        const known = Array.from(tile.levels, value).filter((v) => !Number.isNaN(v));
        if (!known.length) known.push(NaN);
        const mean = known.reduce((a, v) => a + v, 0) / known.length;
        const most = known.reduce((a, v) => Math.max(a, v));
        const least = known.reduce((a, v) => Math.min(a, v));
        return [tile.name, tile.text, ...[most, mean, least].map((v) => number(v, 3))];
      }),
    }));
    return () => {};
  }

  // ---------------------------------------------------------------- the page

  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const draws = { map: layerMap, chart, tiles };
  const again = new Map();
  for (const figure of document.querySelectorAll("figure[data-picture]")) {
    const data = pictures[Number(figure.dataset.picture)];
    again.set(figure.querySelector(".stage"), draws[data.type](figure, data));
  }

  const widths = new WeakMap();
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (widths.get(target) === target.clientWidth) continue;
      widths.set(target, target.clientWidth);
      again.get(target)();
    }
  });
  for (const stage of again.keys()) {
    widths.set(stage, stage.clientWidth);
    observer.observe(stage);
  }
  const all = () => redraws.forEach((redraw) => redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  // On paper the page is light and has its provenance: what is drawn has to be drawn again.
  let closed = [];
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    closed = [...document.querySelectorAll("details.provenance:not([open])")];
    for (const details of closed) details.open = true;
    all();
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    for (const details of closed) details.open = false;
    all();
  });
  document.documentElement.dataset.ready = performance.now().toFixed(1);
})();
