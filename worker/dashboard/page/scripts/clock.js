// The page's clock is the snapshot's, moved on by a clock that nobody can set: a wrong one in the reader's
// machine changes no age. Of a file to keep, it stands still.

const clock = { madeAt: 0, heardAt: 0, live: false };

/** Set the clock by a snapshot that arrived now. */
function setClock(snapshot) {
  clock.madeAt = snapshot.made_at;
  clock.heardAt = performance.now();
  clock.live = snapshot.live;
}

/** Return the time in seconds since 1970. */
function now() {
  return clock.madeAt + (clock.live ? (performance.now() - clock.heardAt) / 1000 : 0);
}
