// The time line can be zoomed where there is JavaScript: drawn again by uPlot from the numbers of its own table.
(() => {
  "use strict";
  const host = document.getElementById("timeline-chart");
  const table = document.getElementById("timeline-table");
  if (!host || !table || typeof uPlot === "undefined") return;

  const fields = Array.from(table.tHead.rows[0].cells, (cell) => cell.dataset.field);
  const column = (field) => {
    const at = fields.indexOf(field);
    return Array.from(table.tBodies[0].rows, (row) => {
      const text = row.cells[at].textContent;
      return text === "" ? null : Number(text);
    });
  };
  const x = column("seconds");
  if (x.length < 2) return;
  const data = [x, column("accuracy"), column("accuracy_ci_low"), column("accuracy_ci_high"), column("population_accuracy")];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const percent = (plot, value) => (value == null ? "–" : (100 * value).toFixed(1) + " %");
  let plot = null;
  const draw = () => {
    const ink = colour("--quiet");
    const axis = { stroke: ink, grid: { stroke: colour("--grid") }, ticks: { stroke: ink } };
    const chart = new uPlot({
      width: host.clientWidth,
      height: 280,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { drag: { x: true, y: false } },
      axes: [axis, { ...axis, size: 60, values: (_, ticks) => ticks.map((tick) => Math.round(100 * tick) + " %") }],
      series: [
        { label: "UTC" },
        { label: "accuracy", stroke: colour("--model"), width: 2, value: percent },
        { label: "low", stroke: ink, width: 1, dash: [2, 2], value: percent },
        { label: "high", stroke: ink, width: 1, dash: [2, 2], value: percent },
        { label: "population", stroke: colour("--population"), width: 1.5, dash: [6, 4], value: percent },
      ],
      bands: [{ series: [3, 2], fill: colour("--grid") }],
    }, data);
    return chart;
  };

  const still = host.querySelector("svg");
  const hint = document.createElement("button");
  hint.type = "button";
  hint.className = "zoom-hint";
  hint.textContent = "Zoom by dragging";
  hint.setAttribute("aria-pressed", "false");
  hint.addEventListener("click", () => {
    const zoomable = plot === null;
    hint.setAttribute("aria-pressed", String(zoomable));
    hint.textContent = zoomable ? "Back to the plain picture" : "Zoom by dragging";
    still.toggleAttribute("hidden", zoomable);
    if (zoomable) {
      plot = draw();
      plot.root.setAttribute("aria-hidden", "true");
      host.append(plot.root);
    } else {
      plot.destroy();
      plot = null;
    }
  });
  host.prepend(hint);
  const redraw = () => {
    if (plot === null) return;
    plot.destroy();
    plot = draw();
    plot.root.setAttribute("aria-hidden", "true");
    host.append(plot.root);
  };
  window.addEventListener("resize", () => plot && plot.setSize({ width: host.clientWidth, height: 280 }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
