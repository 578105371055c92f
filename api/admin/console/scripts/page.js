// The page: who enters, what is asked for again and again, and what a click or a key does.

const REFRESH_MS = 2000;
const OLD_MS = 5000;
const LATEST = 15;
const PLACES = ["steps", "figures", "phases", "cutover-text", "gates", "cutover-steps", "compared", "differences", "losses", "turns", "letters", "record", "found", "done"];
const state = { heardAt: 0, isAsking: false, isDue: false };

function enter(event) {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value);
  sessionStorage.setItem(NAME, byId("name").value.trim());
  byId("token").value = "";
  byId("refused").textContent = "";
  refresh();
}

/** Forget the token and all that was shown. */
function leave(reason) {
  sessionStorage.clear();
  remembered.clear();
  for (const id of PLACES) byId(id).replaceChildren();
  document.title = "Console – collection-sync";
  byId("fresh").textContent = "";
  byId("notice").hidden = true;
  byId("refused").textContent = reason;
  if (byId("ask").open) byId("ask").close();
  showDesk(false);
  byId("name").focus();
}

function showDesk(isSignedIn) {
  byId("enter").hidden = isSignedIn;
  byId("desk").hidden = byId("signed").hidden = !isSignedIn;
}

/** Ask for everything once; what is asked for meanwhile is asked once more. */
async function refresh() {
  if (!isSigned() || document.hidden) return;
  state.isDue = state.isAsking;
  if (state.isAsking) return;
  state.isAsking = true;
  try {
    const [status, phase, letters, record] = await Promise.all([ask("GET", "status"), orNothing(ask("GET", "phase")), orNothing(ask("GET", "dead-letters/groups")), orNothing(ask("GET", `acts?limit=${LATEST}`))]);
    if (isSigned()) show(status, phase, letters, record);
  } catch (error) {
    if (isSigned()) failed(error);
  } finally {
    state.isAsking = false;
  }
  if (state.isDue) await refresh();
}

/** Of what the database does not answer now, the old stays: the verdict says why. */
function orNothing(asked) {
  return asked.catch((error) => {
    if (error.status === 503) return null;
    throw error;
  });
}

function show(status, phase, letters, record) {
  const isNew = byId("desk").hidden;
  showDesk(true);
  say("who", sessionStorage.getItem(NAME));
  state.heardAt = performance.now();
  tick();
  showStatus(status);
  if (phase) showCutover(phase);
  if (letters) showLetters(letters.groups);
  if (record) showRecord(record);
  if (isNew) byId("main").focus();
}

function failed(error) {
  if (error.status === 401 || error.status === 404 || error.status === 422) leave(error.message);
  else if (byId("desk").hidden) leave(`No answer: ${error.message}`);
  tick();
}

/** Say how old what is shown is, in large where it is too old to act on. */
function tick() {
  if (byId("desk").hidden) return;
  const age = performance.now() - state.heardAt;
  const seconds = Math.floor(age / 1000);
  const isOld = age > OLD_MS && !document.hidden;
  say("fresh", isOld ? `${seconds} s old` : "live");
  byId("notice").hidden = !isOld;
  if (isOld) say("notice", "The server does not answer: what you see is old.");
}

async function look(event) {
  event.preventDefault();
  const id = byId("collection").value.trim();
  try {
    showCollection(await ask("GET", `collections/${encodeURIComponent(id)}`));
  } catch (error) {
    if (error.status === 401) leave(error.message);
    else byId("found").replaceChildren(make("p", {}, shown(`Not read: ${error.message}`)));
  }
}

function begin() {
  byId("enter").addEventListener("submit", enter);
  byId("look").addEventListener("submit", look);
  byId("leave").addEventListener("click", () => leave(""));
  byId("ask-no").addEventListener("click", () => byId("ask").close(""));
  byId("ask-yes").addEventListener("click", agree);
  byId("ask-more").addEventListener("submit", (event) => {
    event.preventDefault();
    agree();
  });
  for (const button of document.querySelectorAll("[data-act]")) {
    button.addEventListener("click", () => button.getAttribute("aria-disabled") !== "true" && perform(button.dataset.act));
  }
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, REFRESH_MS);
  setInterval(tick, 1000);
  if (isSigned()) refresh();
  else showDesk(false);
}

begin();
