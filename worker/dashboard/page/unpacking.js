// Runs the charts' library in a page that is one file, where it lies as gzip in base64; the page's policy allows
// the library's own text and no other. A script that draws charts finds `Plotly`, or waits for the event "plotly".
(async () => {
  const packed = Uint8Array.from(atob(document.getElementById("packed").textContent), (letter) => letter.charCodeAt(0));
  const text = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(text).text();
  document.head.append(script);
  document.dispatchEvent(new Event("plotly"));
})();
