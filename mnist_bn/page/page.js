"use strict";
const root = document.documentElement;
const plots = {};

function colours() {
  const style = getComputedStyle(root);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
  return { ink, axis };
}

function themed(layout) {
  const { ink, axis } = colours();
  const own = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
  return {
    ...layout, ...own, template: undefined, font: { ...layout.font, color: ink },
    xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis },
  };
}

// A line that is black on white is white on black, and a map begins with the paper's colour.
function inked(traces) {
  const isDark = root.dataset.theme === "dark";
  return traces.map((trace) => {
    if (trace.type === "heatmap") {
      const colorscale = isDark ? [[0, "#1f2228"], [1, "#2f7ab5"]] : [[0, "#ffffff"], [1, "#6baed6"]];
      return { ...trace, colorscale, textfont: { color: colours().ink } };
    }
    if (!trace.line || trace.line.color !== "#000000") return trace;
    return { ...trace, line: { ...trace.line, color: isDark ? "#ffffff" : "#000000" } };
  });
}

function draw(id) {
  const plot = plots[id];
  const boxes = [...document.querySelectorAll(`input[type=checkbox][data-for="${id}"]`)];
  const isOn = (kind, name) => {
    const ofKind = boxes.filter((box) => box.dataset.kind === kind);
    return !ofKind.length || ofKind.some((box) => box.checked && box.value === name);
  };
  const names = document.createElement("textarea");
  const plain = (words) => { names.innerHTML = words; return names.value; };
  const scale = document.querySelector(`input[data-for="${id}"][data-scale]:checked`);
  const isLog = scale && scale.dataset.scale === "log";
  const traces = inked(plot.data).map((trace) => {
    if (!trace.meta) return trace;
    const visible = isOn("network", plain(trace.meta.network)) &&
      isOn("optimizer", plain(trace.meta.optimizer));
    const y = isLog ? trace.y.map((value) => Math.max(1 - value, 1e-5)) : trace.y;
    return { ...trace, visible, y };
  });
  const layout = themed(plot.layout);
  if (isLog) {
    layout.yaxis = { ...layout.yaxis, type: "log", title: { text: "validation error" } };
  }
  Plotly.react(id, traces, layout, { responsive: true, displaylogo: false });
}

function setTheme(name) {
  root.dataset.theme = name;
  Object.keys(plots).forEach(draw);
}

for (const script of document.querySelectorAll("script[data-plot]")) {
  plots[script.dataset.plot] = JSON.parse(script.textContent);
}
for (const input of document.querySelectorAll("input[data-for]")) {
  input.addEventListener("change", () => draw(input.dataset.for));
}
document.getElementById("theme").addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
});
setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

for (const film of document.querySelectorAll(".film")) {
  const frames = film.querySelectorAll("img");
  const [slider, output, button] = ["input", "output", "button"].map((tag) => film.querySelector(tag));
  let timer = null;
  const show = () => {
    frames.forEach((frame, i) => { frame.hidden = i !== slider.value - 1; });
    output.textContent = slider.value;
  };
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
  slider.addEventListener("input", show);
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Stop";
    if (slider.value === slider.max) { slider.value = 1; show(); }
    timer = setInterval(() => {
      if (slider.value === slider.max) return stop();
      slider.value = Number(slider.value) + 1;
      show();
    }, 400);
  });
}
