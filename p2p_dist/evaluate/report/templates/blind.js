// A blind test: two versions without their names, in random order; how often which was preferred, and how sure that is.

const blind = {};

// Every version that can be compared: the input, and each stem alone and with the input.
function blindVersions() {
  const {made} = content, named = (label) => content.choices.length > 1 ? ` (${label})` : "", found = [];
  content.choices.forEach((one, at) => found.push({name: `mix${named(one.label)}`, part: "made", choice: at, input: true, stem: true}));
  found.push({name: "true mix", part: "target", input: true, stem: true});
  content.choices.forEach((one, at) => found.push({name: `new ${made}${named(one.label)}`, part: "made", choice: at, input: false, stem: true}));
  found.push({name: `true ${made}`, part: "target", input: false, stem: true});
  found.push({name: "ceiling", part: "ceiling", input: false, stem: true}, {name: "ceiling mix", part: "ceiling", input: true, stem: true});
  found.push({name: "input", part: "made", input: true, stem: false});
  return found.filter((one) => one.part === "made" || content.songs.every((song) => one.part in song.tracks));
}

// The 95 % interval of a share by Clopper and Pearson (1934): exact, from the binomial distribution.
function interval(count, total, level = 0.95) {
  const below = (most, share) => {  // probability of at most so many
    let term = Math.log1p(-share) * total, sum = 0;
    for (let n = 0; n <= most; n++) {
      sum += Math.exp(term);
      term += Math.log((total - n) / (n + 1)) + Math.log(share) - Math.log1p(-share);
    }
    return sum;
  };
  const find = (isLower) => {
    let low = 0, high = 1;
    for (let n = 0; n < 50; n++) {
      const middle = (low + high) / 2;
      if (isLower(middle)) low = middle; else high = middle;
    }
    return (low + high) / 2;
  };
  const tail = (1 - level) / 2;
  return [count ? find((share) => 1 - below(count - 1, share) < tail) : 0, count < total ? find((share) => below(count, share) > tail) : 1];
}

const coin = () => crypto.getRandomValues(new Uint8Array(1))[0] & 1;

// An order in which each of the two is X as often as the other, if the number is even.
function balanced(rounds) {
  const found = Array.from({length: rounds}, (_, at) => (at + (rounds % 2 ? coin() : 0)) % 2);
  for (let at = found.length - 1; at > 0; at--) {
    const other = Math.floor(crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32 * (at + 1));
    [found[at], found[other]] = [found[other], found[at]];
  }
  return found;
}

function startBlind(pair, rounds) {
  Object.assign(blind, {pair, orders: balanced(rounds), answers: [], before: {...state}, began: new Date().toISOString()});
  document.body.classList.add("testing");
  showBlind("round");
  nextRound();
}

function nextRound() {
  const {answers, orders} = blind;
  blind.started = performance.now();
  blind.heard = [0, 0];
  $("blind-progress").textContent = `Round ${answers.length + 1} of ${orders.length}`;
  // Of several songs, each in its turn.
  set({song: (blind.before.song + answers.length) % content.songs.length, matched: true});
  player.seek(0);
  hear(0);
  player.play();
}

function hear(which) {
  const one = blind.pair[which ^ blind.orders[blind.answers.length]];
  blind.heard[which]++;
  set({part: one.part, choice: one.choice ?? state.choice, muted: {input: !one.input, stem: !one.stem}, solo: null});
  for (const button of document.querySelectorAll("[data-hear]")) button.setAttribute("aria-pressed", Number(button.dataset.hear) === which);
}

function answer(which) {
  const swapped = blind.orders[blind.answers.length];
  blind.answers.push({
    song: song().name, x: blind.pair[swapped].name, y: blind.pair[1 ^ swapped].name,
    preferred: which === null ? null : blind.pair[which ^ swapped].name,
    times_heard: [...blind.heard], seconds: Math.round((performance.now() - blind.started) / 100) / 10,
  });
  if (blind.answers.length === blind.orders.length) endBlind();
  else nextRound();
}

function endBlind() {
  player.pause();
  leaveBlind();
  const {pair, answers} = blind, of = (name) => answers.filter((one) => one.preferred === name).length;
  const counts = pair.map((one) => of(one.name)), total = counts[0] + counts[1], ends = total ? interval(counts[0], total) : [0, 1];
  const percent = (share) => `${Math.round(100 * share)}\u00a0%`, none = answers.length - total;
  const words = [total ? `You preferred \u201c${pair[0].name}\u201d in ${counts[0]} and \u201c${pair[1].name}\u201d in ${counts[1]} of ${answers.length} rounds` : `You had no preference in ${answers.length} rounds`];
  if (total && none) words.push(`and had none in ${none}`);
  const sure = ends[0] > 0.5 || ends[1] < 0.5;
  $("blind-words").textContent = `${words.join(", ")}. ` + (total ? `The share for the first is ${percent(counts[0] / total)}, with 95\u00a0% confidence between ${percent(ends[0])} and ${percent(ends[1])}: ${sure ? "that is hardly chance." : "that may well be chance; more rounds would tell."}` : "");
  const result = {
    schema: 1, kind: "blind preference test", page: document.title, began: blind.began, ended: new Date().toISOString(), versions: pair.map((one) => one.name),
    matched_loudness: true, preferred: counts, no_preference: none, share_of_first: total ? counts[0] / total : null,
    interval: ends, interval_is: "95 % Clopper-Pearson, without rounds of no preference", rounds: answers,
  };
  URL.revokeObjectURL($("blind-save").href);
  $("blind-save").href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 1)], {type: "application/json"}));
  showBlind("result");
  $("blind-words").focus();
}

function leaveBlind() {
  document.body.classList.remove("testing");
  set(blind.before);
}

function showBlind(part) {
  for (const one of ["setup", "round", "result"]) $(`blind-${one}`).hidden = one !== part;
}

{
  const found = blindVersions();
  for (const select of [$("blind-a"), $("blind-b")]) found.forEach((one, at) => option(select, one.name, at));
  const other = found.findIndex((one) => one.name === "true mix");
  $("blind-b").value = other > 0 ? other : content.choices.length > 1 ? 1 : found.length - 1;
  $("blind-setup").addEventListener("submit", (event) => {
    event.preventDefault();
    const pair = [found[$("blind-a").value], found[$("blind-b").value]];
    $("blind-problem").textContent = pair[0] === pair[1] ? "Choose two different versions." : "";
    if (pair[0] !== pair[1]) startBlind(pair, Number($("blind-rounds").value));
  });
}
for (const button of document.querySelectorAll("[data-hear]")) button.addEventListener("click", () => hear(Number(button.dataset.hear)));
for (const button of document.querySelectorAll("[data-prefer]")) button.addEventListener("click", () => answer(button.dataset.prefer === "" ? null : Number(button.dataset.prefer)));
$("blind-stop").addEventListener("click", () => { player.pause(); leaveBlind(); showBlind("setup"); });
$("blind-again").addEventListener("click", () => showBlind("setup"));
