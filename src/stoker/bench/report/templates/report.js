(function () {
  "use strict";
  var holder = document.getElementById("stoker-data");
  var line = holder ? JSON.parse(holder.textContent).timeline : null;

  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details[data-print]").forEach(function (part) { part.open = true; });
  });
  document.querySelectorAll("[data-copy]").forEach(function (button) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", function () {
      navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent).then(function () {
        button.textContent = "copied";
      });
    });
  });
  if (!line) { return; }

  function seconds(value) {
    if (value < 1e-3) { return (value * 1e6).toPrecision(3) + " µs"; }
    return value < 1 ? (value * 1e3).toPrecision(3) + " ms" : value.toFixed(2) + " s";
  }
  function ratio(value) { return (value * 100).toFixed(1) + " %"; }
  function rate(value) {
    var units = ["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"], place = 0;
    while (value >= 1024 && place < units.length - 1) { value /= 1024; place += 1; }
    return value.toFixed(place ? 2 : 0) + " " + units[place];
  }
  function span(band, index, write) {
    return band.mean[index] === null ? "–"
      : write(band.mean[index]) + " (" + write(band.low[index]) + " to " + write(band.high[index]) + ")";
  }
  var tell = {
    au: function (i) { return span(line.au, i, ratio); },
    step: function (i) {
      var compute = line.compute_seconds.mean[i];
      return "wait " + span(line.wait_seconds, i, seconds) + ", compute " + (compute === null ? "–" : seconds(compute));
    },
    rate: function (i) { return rate(line.delivered_bytes_per_second[i]); }
  };
  var charts = Array.prototype.slice.call(document.querySelectorAll("svg[data-chart]"));
  var at = -1;

  function show(index) {
    at = Math.max(0, Math.min(line.seconds.length - 1, index));
    charts.forEach(function (chart) {
      var left = +chart.dataset.left, right = +chart.dataset.right;
      var x = left + (right - left) * Math.min(1, line.seconds[at] / +chart.dataset.xMax);
      var cross = chart.querySelector(".cross");
      cross.setAttribute("x1", x);
      cross.setAttribute("x2", x);
      chart.closest("figure").querySelector("output").textContent =
        "at " + line.seconds[at].toFixed(1) + " s: " + tell[chart.dataset.chart](at);
    });
  }
  function hide() {
    at = -1;
    charts.forEach(function (chart) {
      chart.querySelector(".cross").setAttribute("x1", -9);
      chart.querySelector(".cross").setAttribute("x2", -9);
      chart.closest("figure").querySelector("output").textContent = "";
    });
  }
  charts.forEach(function (chart) {
    var frame = chart.closest(".scroll");
    chart.addEventListener("pointermove", function (event) {
      var box = chart.getBoundingClientRect();
      var x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      var share = (x - +chart.dataset.left) / (+chart.dataset.right - +chart.dataset.left);
      show(Math.round(share * line.seconds.length - 0.5));
    });
    chart.addEventListener("pointerleave", hide);
    frame.addEventListener("keydown", function (event) {
      if (event.key === "ArrowRight") { show(at + 1); event.preventDefault(); }
      if (event.key === "ArrowLeft") { show(at < 0 ? line.seconds.length - 1 : at - 1); event.preventDefault(); }
      if (event.key === "Escape") { hide(); }
    });
    frame.addEventListener("blur", hide);
  });
}());
