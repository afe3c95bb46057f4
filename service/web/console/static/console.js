// The script of the console. It does without: every link and form works if this does not run.
//
//   data-poll="5"       on <main>: fetch the view again every so many seconds, while it is visible
//   data-live, id       swap this element when it has changed; on a form: send it and stay
//   data-auto           on a form with method=get: show the new view while one types or drags
//   data-key="j"        on a link, button or input: this key presses or focuses it
//   data-lines          a figure whose drawing is replaced by moving lines (uPlot)
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const notice = $("#notice");
  const drawn = new Map(); // figure's id -> its uPlot
  let running = 0; // number of the latest fetch: an older answer that comes late is dropped

  document.documentElement.classList.add("scripted");

  const say = (text) => {
    if (notice.textContent !== text) notice.textContent = text;
    notice.hidden = !text;
  };

  // The URL of a view's fragment: /console/now -> /console/now.html
  const fragment = (url) => {
    const found = new URL(url, location.href);
    found.pathname = found.pathname.replace(/\/console\/?$/, "/console/now") + ".html";
    return found;
  };

  // Keep focus and selection while `change` replaces parts of the page.
  const keepFocus = (change) => {
    const focused = document.activeElement;
    const id = focused && focused.id;
    const range = focused && "selectionStart" in focused && [focused.selectionStart, focused.selectionEnd];
    change();
    if (!id || document.activeElement === focused) return;
    const again = document.getElementById(id);
    if (!again) return;
    again.focus({ preventScroll: true });
    if (range && range[0] !== null) try { again.setSelectionRange(...range); } catch { /* a type without one */ }
  };

  // Swap the live parts that differ. One in which text is being selected stays until the next time.
  const swapParts = (page) => keepFocus(() => {
    for (const part of $$("[data-live][id]")) {
      const fresh = page.getElementById(part.id);
      const selection = getSelection();
      const selected = !selection.isCollapsed && part.contains(selection.anchorNode);
      if (!fresh || selected || part.isEqualNode(fresh)) continue;
      if (part.hasAttribute("data-lines") && drawn.has(part.id)) {
        part.dataset.points = fresh.dataset.points;
        move(part);
      } else part.replaceWith(document.importNode(fresh, true));
    }
    draw();
  });

  const swapMain = (page) => keepFocus(() => {
    const fresh = $("#main", page);
    if (!fresh) return;
    forget();
    $("#main").replaceWith(document.importNode(fresh, true));
    if (page.title) document.title = page.title;
    draw();
  });

  const load = async (url, options, swap) => {
    const mine = ++running;
    try {
      const answer = await fetch(url, { credentials: "same-origin", ...options });
      const text = await answer.text();
      if (mine !== running) return null;
      const page = new DOMParser().parseFromString(text, "text/html");
      if (!answer.ok) {
        const told = $("#error", page);
        say(told ? told.textContent : `The service answered with ${answer.status}.`);
        return null;
      }
      say("");
      swap(page);
      return answer;
    } catch {
      const again = options.method ? "What you sent may be lost: send it again." : `This page shows what it last said${Number($("#main").dataset.poll) ? ", and tries again" : ""}.`;
      if (mine === running) say(`The service does not answer. ${again}`);
      return null;
    }
  };

  // Poll while somebody looks.
  let next = 0;
  const tick = async () => {
    clearTimeout(next);
    const seconds = Number($("#main").dataset.poll);
    if (seconds && !document.hidden) await load(fragment(location.href), {}, swapParts);
    if (seconds) next = setTimeout(tick, 1000 * seconds);
  };
  const start = () => {
    clearTimeout(next);
    const seconds = Number($("#main").dataset.poll);
    if (seconds) next = setTimeout(tick, 1000 * seconds);
  };
  document.addEventListener("visibilitychange", () => document.hidden || !next || tick());

  // Forms that show the new view while one types.
  let typed = 0;
  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (!form || !form.hasAttribute("data-auto")) return;
    clearTimeout(typed);
    typed = setTimeout(() => {
      const url = new URL(form.action);
      url.search = new URLSearchParams(new FormData(form));
      history.replaceState(null, "", url);
      load(fragment(url), {}, swapParts);
    }, 120);
  });

  // Forms that are sent without leaving the page.
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.hasAttribute("data-live") || form.method !== "post") return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter));
    const answer = await load(form.action, { method: "POST", body }, swapMain);
    if (answer) history.replaceState(null, "", answer.url);
    start();
  });

  // Keys.
  const help = $("#help");
  const showHelp = () => {
    const items = $$("[data-key]").map((one) => {
      const key = document.createElement("dt");
      key.append(Object.assign(document.createElement("kbd"), { textContent: one.dataset.key }));
      return [key, Object.assign(document.createElement("dd"), { textContent: one.title || one.textContent.trim() })];
    });
    $("dl", help).replaceChildren(...items.flat());
    help.showModal();
  };
  document.addEventListener("click", (event) => event.target.closest("[data-help]") && showHelp());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), textarea, select");
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const found = $$("[data-key]").find((one) => one.dataset.key === event.key && !one.disabled);
    if (!found) return;
    event.preventDefault();
    if (found.matches("input:not([type=submit]), select, textarea")) found.focus();
    else found.click();
  });

  // Moving lines. data-points is [[seconds since 1970, ...], [values, ...], ...]; a null is a gap.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const points = (figure) => JSON.parse(figure.dataset.points);
  const move = (figure) => drawn.get(figure.id).setData(points(figure));
  const forget = () => {
    for (const plot of drawn.values()) plot.destroy();
    drawn.clear();
  };
  const LEAST = 300; // seconds that the lines cover at least, so that the first ones are not stretched
  const clock = (time, end) => new Date(1000 * time).toISOString().slice(11, end); // UTC
  const width = (figure) => figure.clientWidth;
  // uPlot comes after the first paint, and only for a page that has lines: they are drawn as SVG before.
  const files = document.currentScript.dataset;
  const fetchPlot = () => {
    if (!files.plot) return;
    const script = Object.assign(document.createElement("script"), { src: files.plot, onload: () => draw() });
    delete files.plot;
    document.head.append(script);
  };
  const draw = () => {
    const figures = $$("[data-lines]");
    if (figures.length && !window.uPlot) return fetchPlot();
    for (const figure of figures) {
      const data = points(figure);
      if (drawn.has(figure.id) || data[0].length < 2) continue;
      const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
      const unit = figure.dataset.unit || "";
      const told = (_, value) => value == null ? "" : `${+value.toPrecision(3)}${unit}`;
      const series = figure.dataset.lines.split(",").map((label, i) => ({
        label, stroke: colour(`--series-${i + 1}`), width: 1.5, points: { show: false }, value: told,
        fill: i ? undefined : colour("--series-1-fill"),
      }));
      const place = $(".plot", figure) || figure.appendChild(Object.assign(document.createElement("div"), { className: "plot", ariaHidden: "true" }));
      $("svg", figure).toggleAttribute("hidden", true);
      drawn.set(figure.id, new uPlot({
        width: width(place), height: 150, padding: [8, 24, 0, 0],
        cursor: { y: false, points: { size: 6 }, sync: { key: "console" } }, legend: { live: true },
        scales: { x: { range: (_, first, last) => [Math.min(first, last - LEAST), last] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [{ ...axis, size: 24, space: 64, values: (_, all) => all.map((v) => clock(v, 16)) }, { ...axis, size: 48, values: (_, all) => all.map((v) => `${+v.toPrecision(3)}${unit}`) }],
        series: [{ label: "UTC", value: (_, value) => value == null ? "" : clock(value, 19) }, ...series],
      }, data, place));
    }
  };
  const resize = () => {
    for (const plot of drawn.values()) plot.setSize({ width: plot.root.parentElement.clientWidth, height: 150 });
  };
  addEventListener("resize", resize);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { forget(); draw(); });
  draw();
  start();
})();
