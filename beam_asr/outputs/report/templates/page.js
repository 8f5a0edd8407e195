(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("rows");
  if (!table) return;
  const byId = (id) => document.getElementById(id);
  const PAGE = 20;
  const state = { key: null, down: true, page: 0, rows: [] };
  const collator = new Intl.Collator();

  // Texts of rows are put in as texts, never as markup.
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const format = (value, column) => {
    if (value === undefined || value === null) return "";
    if (column.format === "percent") return (100 * value).toFixed(1) + "%";
    if (column.format === "signed") return (value > 0 ? "+" : "") + value;
    return column.format === "number" ? value.toFixed(2) : String(value);
  };

  const haystacks = data.rows.map((row) =>
    [row.audio, row.reference, ...row.texts.flatMap(([, pieces]) => pieces.map((piece) => piece[1]))]
      .join(" ").toLowerCase());

  const choices = ["language", "model"].map((key) => {
    const values = [...new Set(data.rows.map((row) => row[key]).filter((value) => value !== undefined))];
    const select = byId("choose-" + key);
    if (values.length < 2) {
      select.parentElement.hidden = true;
      select.parentElement.style.display = "none";
    }
    values.sort(collator.compare).forEach((value) => {
      const option = make("option", "", value);
      option.value = value;
      select.append(option);
    });
    return { key, select };
  });
  const search = byId("search");
  const list = byId("choose-list");

  function select() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [];
    data.rows.forEach((row, number) => {
      if (!(list.value in row.lists)) return;
      if (choices.some(({ key, select }) => select.value && row[key] !== select.value)) return;
      if (words.every((word) => haystacks[number].includes(word))) rows.push(row);
    });
    if (state.key === null) {
      rows.sort((one, other) => one.lists[list.value] - other.lists[list.value]);
    } else {
      const { key } = state;
      const sign = state.down ? -1 : 1;
      rows.sort((one, other) => {
        const a = one[key], b = other[key];
        const aIsNone = a === undefined || a === null, bIsNone = b === undefined || b === null;
        if (aIsNone || bIsNone) return aIsNone - bIsNone;  // rows without a value come last
        return sign * (typeof a === "number" ? a - b : collator.compare(a, b));
      });
    }
    state.rows = rows;
    state.page = 0;
    show();
  }

  function show() {
    const { rows, page } = state;
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    const start = page * PAGE;
    table.tBodies[0].replaceChildren(...rows.slice(start, start + PAGE).map(rowElement));
    byId("count").textContent = rows.length
      ? `Rows ${start + 1} to ${Math.min(start + PAGE, rows.length)} of ${rows.length}`
      : "No row fits";
    byId("previous").disabled = page === 0;
    byId("next").disabled = page >= pages - 1;
  }

  function rowElement(row) {
    const line = make("tr");
    const audio = make("td");
    audio.append(...audioElements(row));
    const what = make("td", "what");
    row.texts.forEach(([label, pieces]) => what.append(textElement(label, pieces)));
    what.append(fromElement(row));
    line.append(audio, what);
    data.columns.forEach((column) => {
      const cell = make("td", "n", format(row[column.key], column));
      cell.dataset.label = column.label;
      line.append(cell);
    });
    return line;
  }

  function textElement(label, pieces) {
    const text = make("p", "text");
    text.dir = "auto";
    if (label) text.append(make("b", "", label), " ");
    if (!pieces.length || pieces.every(([, words]) => !words)) text.append(make("i", "", "(no text)"));
    pieces.forEach(([kind, words], number) => {
      if (number) text.append(" ");
      if (kind === "=") text.append(words);
      else text.append(make(kind === "-" ? "del" : "ins", "", words));
    });
    return text;
  }

  function fromElement(row) {
    const from = make("p", "from");
    if (row.why) from.append(make("span", "why", row.why));
    const place = make("bdi", "", row.audio || "(no path)");
    if (/^(https?|file):/.test(row.link || "")) {
      const link = make("a");
      link.href = row.link;
      link.rel = "noreferrer noopener";
      link.append(place);
      from.append(link);
    } else from.append(place);
    const notes = [];
    if (row.offset) notes.push(`from ${+row.offset.toFixed(2)} s`);
    if (Number.isInteger(row.channel)) notes.push(`channel ${row.channel}`);
    if (row.language !== undefined) notes.push(row.language);
    if (row.model !== undefined) notes.push(row.model);
    if (row.is_cut) notes.push("the first minute can be played");
    if (row.problem) notes.push(`no audio: ${row.problem}`);
    notes.forEach((note) => from.append(" · ", make("bdi", "", note)));
    return from;
  }

  // One player for all rows.
  const player = byId("player");
  const sound = byId("sound");
  let playing = null;

  function audioElements(row) {
    if (!row.media) return [];
    const button = make("button", "play");
    button.type = "button";
    button.dataset.playing = "no";
    mark(button, row === playing && !sound.paused);
    button.setAttribute("aria-label", "Play " + (row.audio || "the row"));
    button.addEventListener("click", () => toggle(row));
    button.row = row;
    return [button];
  }
  function mark(button, isPlaying) {
    button.textContent = isPlaying ? "❚❚" : "▶";
    button.setAttribute("aria-pressed", String(isPlaying));
  }
  function markAll() {
    table.querySelectorAll(".play").forEach((button) =>
      mark(button, button.row === playing && !sound.paused));
  }
  function toggle(row) {
    if (row === playing && !sound.paused) return sound.pause();
    if (row !== playing) {
      playing = row;
      sound.src = "data:audio/mpeg;base64," + row.media;
      byId("playing").textContent = row.audio;
      player.hidden = false;
    }
    sound.play().catch(() => {});  // a second click came before the first was served
  }
  ["play", "pause", "ended"].forEach((event) => sound.addEventListener(event, markAll));
  byId("close").addEventListener("click", () => {
    sound.pause();
    player.hidden = true;
  });

  table.tHead.querySelectorAll("button").forEach((button) => {
    button.addEventListener("click", () => {
      const { key } = button.dataset;
      state.down = state.key === key ? !state.down : true;
      state.key = key;
      table.tHead.querySelectorAll("th").forEach((cell) => cell.removeAttribute("aria-sort"));
      button.parentElement.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      select();
    });
  });
  byId("previous").addEventListener("click", () => { state.page -= 1; show(); });
  byId("next").addEventListener("click", () => { state.page += 1; show(); });
  [search, list, ...choices.map(({ select }) => select)].forEach((control) =>
    control.addEventListener("input", select));
  select();
})();
