// The phase of the cutover, and what only the target holds, so that readers would lose it by going back.

const LOST_WORDS = { further_links: "further links", tags: "rows with tags", mappings: "rows with mappings", contexts: "contexts of their own", without_home: "collections without a home" };

function showCutover({ cutover }) {
  if (!changed("cutover", [cutover, today()])) return;
  byId("cutover-none").hidden = Boolean(cutover);
  byId("cutover-known").hidden = !cutover;
  if (!cutover) return;
  const { number, title, since, fell_back: fellBack, lost, lost_counted_at: at } = cutover;
  byId("cutover-phase").textContent = `${number}. ${title}`;
  byId("cutover-since").replaceChildren("since ", moment(since), ...(fellBack ? [" ", badge("bad", "fell back")] : []));
  byId("cutover-lost").hidden = lost == null;
  if (lost == null) return;
  byId("cutover-counted").replaceChildren("Going back would lose, as counted ", age(at), ":");
  describe(byId("cutover-losses"), Object.entries(LOST_WORDS).map(([kind, words]) => [words, count(lost[kind])]));
}
