"use strict";
(async () => {
  // Packed it is 2 MB of the page instead of 5.
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (byte) => byte.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(unpacked).text();
  document.head.append(library);

  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const settings = { responsive: true, displaylogo: false, displayModeBar: false };
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const themed = (layout) => {
    const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line") };
    const full = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--ink"), family: "system-ui, DejaVu Sans, sans-serif", size: 12 },
      hoverlabel: { align: "left" },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    };
    for (const key of Object.keys({ xaxis: 0, yaxis: 0, ...layout }))
      if (/^[xy]axis\d*$/.test(key)) full[key] = { ...axis, ...layout[key] };
    return full;
  };

  // The slider keeps the first lines; they are sorted, best first.
  let kept = figures.parallel ? figures.parallel.words.length : 0;
  const finished = (trace) =>
    trace.type !== "parcoords"
      ? {
          ...trace,
          line: trace.line && { ...trace.line, color: trace.line.color === "ink" ? color("--ink") : trace.line.color },
          error_x: trace.error_x && { ...trace.error_x, color: color("--ink") },
          error_y: trace.error_y && { ...trace.error_y, color: color("--ink") },
        }
      : {
          ...trace,
          dimensions: trace.dimensions.map((axis) => ({ ...axis, values: axis.values.slice(0, kept) })),
          line: { ...trace.line, color: trace.line.color.slice(0, kept) },
          unselected: { line: { color: color("--line"), opacity: 0.4 } },
        };

  const draw = (place) => {
    const figure = figures[place.dataset.figure];
    return Plotly.react(place, figure.data.map(finished), themed(figure.layout), settings);
  };
  const places = [...document.querySelectorAll("[data-figure]")];
  const drawn = Promise.all(places.map(draw));
  dark.addEventListener("change", () => places.forEach(draw));

  const slider = document.getElementById("top");
  if (slider) {
    const place = document.querySelector('[data-figure="parallel"]');
    const all = figures.parallel.words.length;
    const said = document.getElementById("top-shown");
    const say = () => (said.textContent = `${kept} of ${all}`);
    say();
    slider.addEventListener("input", () => {
      kept = Number(slider.value);
      say();
      draw(place);
    });
    drawn.then(() => {
      const line = document.getElementById("hovered");
      place.on("plotly_hover", (event) => (line.textContent = figures.parallel.words[event.curveNumber] || "\u00a0"));
      place.on("plotly_unhover", () => (line.textContent = "\u00a0"));
    });
  }
  drawn.then(() => document.body.setAttribute("data-drawn", ""));
})();
