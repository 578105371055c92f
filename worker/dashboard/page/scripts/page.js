// Draws the snapshot that came with the page, and, while it is live, each one that follows.

let snapshot = JSON.parse(byId("snapshot").textContent);

function drawPage() {
  const range = chosenRange();
  drawMoment();
  showDeadLetters(snapshot);
  showFindings(snapshot);
  showCutover(snapshot);
  showTroubles(snapshot);
  showSource(snapshot);
  if (document.hidden) return;
  drawCharts(range);
}

function drawCharts(range) {
  const span = spanOf(snapshot, range);
  const marks = marksIn(snapshot, span);
  showMarks(marks);
  for (const [id, chart] of Object.entries({ agreement: agreementChart, lag: lagChart, throughput: throughputChart, waiting: waitingChart })) {
    draw(id, chart(snapshot, range), marks, span);
  }
}

/** Draw again once the window has kept its size for a moment: the marks' names have more or less room. */
function onResize(redraw) {
  let timer = null;
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(redraw, 200);
  });
}

/** Draw what changes by time alone. */
function drawMoment() {
  showVerdict(judge(snapshot, now(), silence()));
  showNotice();
  showTiles(snapshot, chosenRange());
  showBackfill(snapshot);
  showWorkers(snapshot);
  tickAges();
}

function showSnapshot(newer) {
  snapshot = newer;
  setClock(newer);
  drawPage();
}

function showMade() {
  const text = snapshot.live ? ["Live"] : ["As of ", make("time", { datetime: new Date(snapshot.made_at * 1000).toISOString() }, fullTimes.format(snapshot.made_at * 1000))];
  byId("made").replaceChildren(...text);
  byId("made").classList.toggle("live", snapshot.live);
  byId("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
}

function begin() {
  setClock(snapshot);
  addCopyButtons();
  showMade();
  showRange();
  onRange(drawPage);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", drawPage);
  document.addEventListener("visibilitychange", () => document.hidden || drawPage());
  document.addEventListener("plotly", drawPage);
  onResize(drawPage);
  document.querySelector(".skip").addEventListener("click", skip);
  drawPage();
  if (snapshot.live) beginLive();
}

/** Move the focus without a change of the address, which holds the range. */
function skip(event) {
  event.preventDefault();
  byId("verdict").focus();
}

function beginLive() {
  ask(showSnapshot);
  setInterval(() => document.hidden || drawMoment(), 1000);
  document.addEventListener("visibilitychange", () => document.hidden || ask(showSnapshot));
}

begin();
