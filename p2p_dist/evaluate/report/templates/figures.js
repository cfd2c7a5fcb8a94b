// The figures of the song and the checkpoint that are heard.

const made = JSON.parse($("made").textContent);

function showFigures() {
  if (document.body.classList.contains("testing")) return;  // they would tell which version is heard
  const {key} = song(), {track, label} = choice();
  for (const article of document.querySelectorAll(".song")) article.hidden = article.dataset.key !== key;
  const article = document.querySelector(`.song[data-key="${key}"]`), row = made[track]?.[key];
  for (const step of article.querySelectorAll(".step")) step.textContent = label;
  article.querySelectorAll(".output td").forEach((cell, at) => {
    const value = row?.[at], known = typeof value === "string";
    cell.textContent = known ? value : "\u2013";
    cell.title = known ? "" : value?.[0] ?? "could not be measured";
  });
}
listeners.push(showFigures);
showFigures();
