// The player's surface: what is chosen, shown and heard. One state; everything else follows from it.

const content = JSON.parse(document.getElementById("content").textContent);
const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// Versions: which part is the stem, and whether input and stem are heard.
const VERSIONS = {
  mix: ["made", true, true], stem: ["made", false, true], input: [null, true, false],
  "true-mix": ["target", true, true], target: ["target", false, true], ceiling: ["ceiling", false, true],
};
const state = {song: 0, choice: content.chosen, part: "made", muted: {input: false, stem: false}, solo: null, matched: true};
const views = new Views($("views"));
const player = new Player(content.segment, content.margin, update);
const listeners = [];  // called with the state after each change: the page of a run shows figures of what is heard

const song = () => content.songs[state.song];
const choice = () => content.choices[state.choice];
const stemTrack = () => state.part === "made" ? choice().track : state.part;
const audible = (part) => state.solo ? state.solo === part : !state.muted[part];
const has = (part) => part === null || part === "made" || part in song().tracks;
const version = () => Object.keys(VERSIONS).find((name) => {
  const [part, input, stem] = VERSIONS[name];
  return audible("input") === input && audible("stem") === stem && (part === null || part === state.part);
});

// Gain in dB that makes what is heard as loud as every other version.
function gainOf(track, input, stem) {
  const {tracks} = song();
  return (!stem ? tracks.input.alone : input ? tracks[track].mixed : tracks[track].alone) ?? 0;
}

function heardTracks() {
  const input = audible("input"), stem = audible("stem"), track = stemTrack();
  const factor = state.matched ? 10 ** (gainOf(track, input, stem) / 20) : 1;
  return new Map([...(input ? [["input", factor]] : []), ...(stem ? [[track, factor]] : [])]);
}

// Change the state, then what is heard and shown.
function set(change) {
  const before = state.song;
  Object.assign(state, change);
  if (!has(state.part)) state.part = "made";
  if (state.song !== before) openSong();
  player.choose(heardTracks());
  views.show(song(), [...heardTracks().keys()].map((track) => ({track, kind: track === "input" ? "input" : state.part})));
  update();
  for (const listener of listeners) listener(state);
}

function chooseVersion(name) {
  const [part, input, stem] = VERSIONS[name];
  set({part: part ?? state.part, muted: {input: !input, stem: !stem}, solo: null});
}

function openSong() {
  const playing = player.playing;
  player.open(song());
  player.heard = heardTracks();
  if (playing) player.play();
}

// What is likely to be asked for next: the other versions, then the nearest choices, as many as stay decoded.
function prepare() {
  const near = content.choices.map((one, at) => [Math.abs(at - state.choice), one.track]).sort((a, b) => a[0] - b[0]).map((one) => one[1]);
  const wanted = ["input", choice().track, "target", "ceiling", ...near.slice(0, 12)];
  player.prepare([...new Set(wanted)].filter((track) => track in song().tracks));
}

function update(error) {
  const {made} = content, testing = document.body.classList.contains("testing");
  const words = {
    mix: `You hear ${content.input.name} with the ${made} that the model made`,
    stem: `You hear only the ${made} that the model made`,
    input: `You hear ${content.input.meaning}`,
    "true-mix": `You hear ${content.input.name} with the true ${made}, as recorded`,
    target: `You hear only the true ${made}, as recorded`,
    ceiling: `You hear the true ${made} as the model's pictures of sound can give them back: no model of this kind does better`,
    undefined: audible("stem") ? `You hear ${content.input.name} and the stem ${state.part}` : "All is muted",
  };
  const now = version(), several = content.choices.length > 1 && state.part === "made" && audible("stem");
  const ends = audible("stem") ? song().tracks[stemTrack()].seconds : song().seconds;
  const short = ends < song().seconds - 0.1 ? ` The clip of the ${made} ends at ${clock(ends)}.` : "";
  $("heard").textContent = error ? `This can't be played: ${error.message}` : testing ? "" : `${words[now]}${several ? ` (${choice().label})` : ""}.${short}`;
  document.body.classList.toggle("playing", player.playing);
  document.body.classList.toggle("waiting", player.waiting);
  $("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
  for (const radio of document.querySelectorAll("#versions input")) {
    radio.checked = radio.value === now;
    radio.closest("label").hidden = !has(VERSIONS[radio.value][0]);
  }
  for (const strip of document.querySelectorAll("[data-part]")) {
    const {part} = strip.dataset;
    strip.querySelector("[data-act=mute]").setAttribute("aria-pressed", state.muted[part]);
    strip.querySelector("[data-act=solo]").setAttribute("aria-pressed", state.solo === part);
    strip.classList.toggle("off", !audible(part));
  }
  const strip = document.querySelector("[data-part=stem]");
  strip.querySelector(".dot").className = `dot ${state.part}`;
  strip.querySelector(".name").textContent = {made: `new ${made}`, target: `true ${made}`, ceiling: "ceiling"}[state.part];
  $("song-name").textContent = song().name;
  $("song").value = state.song;
  $("choice").value = state.choice;
  $("match").checked = state.matched;
  const gain = gainOf(stemTrack(), audible("input"), audible("stem"));
  $("gain").textContent = state.matched ? `${gain > 0 ? "+" : gain < 0 ? "\u2212" : "\u00b1"}${Math.abs(gain)} dB, to ${`${song().lufs}`.replace("-", "\u2212")} LUFS` : "off: as in the files";
  $("loop").setAttribute("aria-pressed", Boolean(player.loop));
  $("loop-range").textContent = player.loop ? `${clock(player.loop.from, 1)} to ${clock(player.loop.to, 1)}` : "";
  move();
  if (player.playing && !player.waiting) prepare();
}

let drawn = 0;
function move() {
  const at = player.position(), {seconds} = song();
  $("cursor").style.transform = `translateX(${views.place(at)}px)`;
  $("time").textContent = `${clock(at, 1)} / ${clock(seconds, 1)}`;
  const slider = $("seek");
  slider.setAttribute("aria-valuemax", seconds.toFixed(1));
  slider.setAttribute("aria-valuenow", at.toFixed(1));
  slider.setAttribute("aria-valuetext", `${clock(at, 1)} of ${clock(seconds, 1)}`);
  $("region").hidden = !player.loop;
  if (player.loop) {
    $("region").style.left = `${views.place(player.loop.from)}px`;
    $("region").style.width = `${views.place(player.loop.to) - views.place(player.loop.from)}px`;
  }
}
function frame(time) {
  // With reduced motion the cursor moves twice a second.
  if (player.playing && time - drawn > (calm.matches ? 500 : 0)) { drawn = time; move(); }
  requestAnimationFrame(frame);
}

const toggle = () => player.playing ? player.pause() : player.play();
function setLoop(from, to) {
  [from, to] = [Math.max(0, Math.min(from, to)), Math.min(song().seconds, Math.max(from, to))];
  if (to - from < 0.05) return;
  player.setLoop({from: player.frame(from), to: player.frame(to)});
  update();
}
function toggleLoop() {
  const at = Math.max(0, Math.min(player.position(), song().seconds - 4));
  if (player.loop) { player.setLoop(null); update(); }
  else setLoop(at, at + 4);
}
const mute = (part) => set({muted: {...state.muted, [part]: !state.muted[part]}, solo: null});

// Seek by click or drag; mark a loop with Shift; drag the ends of the loop.
$("seek").addEventListener("pointerdown", (event) => {
  if (event.button) return;
  const slider = $("seek"), second = (one) => views.seconds(one.clientX - $("screen").getBoundingClientRect().left);
  const start = second(event), near = (at) => Math.abs(views.place(at) - views.place(start)) < 10;
  const {loop} = player;
  const fixed = loop && near(loop.to) ? loop.from : loop && near(loop.from) ? loop.to : event.shiftKey ? start : null;
  const follow = fixed === null ? (one) => player.seek(second(one)) : (one) => setLoop(fixed, second(one));
  slider.setPointerCapture(event.pointerId);
  if (fixed === null) follow(event);
  slider.onpointermove = follow;
  slider.onpointerup = slider.onpointercancel = () => { slider.onpointermove = null; };
});

document.addEventListener("keydown", (event) => {
  const {target, key} = event;
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open || target.matches("select, input[type=range], textarea")) return;
  // Where the player is not seen, keys scroll the page or a table as usual.
  if (!target.closest(".player") && (target !== document.body || $("screen").getBoundingClientRect().bottom < 0)) return;
  const testing = document.body.classList.contains("testing");
  const by = (seconds) => player.seek(player.position() + seconds), step = event.shiftKey ? 10 : 1;
  const radio = target.matches("input[type=radio]");
  const acts = {
    ArrowLeft: !radio && (() => by(-step)), ArrowRight: !radio && (() => by(step)),
    ArrowUp: !radio && !testing && (() => set({choice: Math.max(0, state.choice - 1)})),
    ArrowDown: !radio && !testing && (() => set({choice: Math.min(content.choices.length - 1, state.choice + 1)})),
    Home: () => player.seek(0), "?": () => $("keys").showModal(), l: toggleLoop,
    "[": () => setLoop(player.position(), player.loop?.to ?? song().seconds),
    "]": () => setLoop(player.loop?.from ?? 0, player.position()),
    m: !testing && (() => mute("input")), n: !testing && (() => mute("stem")),
    e: !testing && (() => set({matched: !state.matched})),
    // Enter and space act on what has the focus.
    " ": !target.matches("button, summary, a, input[type=checkbox]") && toggle,
  };
  const names = Object.keys(VERSIONS).filter((name) => has(VERSIONS[name][0]));
  const act = /^[1-9]$/.test(key) && !testing ? names[key - 1] && (() => chooseVersion(names[key - 1])) : acts[key.length === 1 ? key.toLowerCase() : key];
  if (act) { event.preventDefault(); act(); }
});

// Fill in what depends on the content. Names are text, never HTML.
function option(select, label, value) { select.append(new Option(label, value)); }
{
  const {made, choices, songs} = content;
  const labels = {
    mix: ["Mix", `${content.input.name} + new ${made}`], stem: [`New ${made}`, "made by the model"], input: ["Input", content.input.meaning],
    "true-mix": ["True mix", `${content.input.name} + true ${made}`], target: [`True ${made}`, "as recorded"], ceiling: ["Ceiling", "the best possible"],
  };
  Object.keys(VERSIONS).forEach((name) => {
    const [part] = VERSIONS[name], label = document.createElement("label"), radio = document.createElement("input");
    const dots = [VERSIONS[name][1] && "input", part].filter(Boolean);
    Object.assign(radio, {type: "radio", name: "version", value: name});
    const box = document.createElement("span"), title = document.createElement("b"), small = document.createElement("small");
    for (const kind of dots) title.append(Object.assign(document.createElement("i"), {className: `dot ${kind}`}));
    title.append(labels[name][0]);
    small.textContent = labels[name][1];
    box.append(title, small);
    label.append(radio, box);
    $("versions").append(label);
  });
  choices.forEach((one, at) => option($("choice"), one.meaning ? `${one.label} (${one.meaning})` : one.label, at));
  songs.forEach((one, at) => option($("song"), one.name, at));
  $("song-pick").hidden = songs.length < 2;
  $("song-name").classList.toggle("said", songs.length === 1 && songs[0].name === document.title);  // by the title above
  $("choice-pick").hidden = choices.length < 2;
  $("chooser").textContent = content.chooser;
  $("keys-choice").textContent = `previous, next ${content.chooser.toLowerCase()}`;
  document.querySelector("[data-part=input] .name").textContent = content.input.label;
}
$("versions").addEventListener("change", (event) => chooseVersion(event.target.value));
$("choice").addEventListener("change", (event) => set({choice: Number(event.target.value), part: "made"}));
$("song").addEventListener("change", (event) => set({song: Number(event.target.value)}));
$("play").addEventListener("click", toggle);
$("loop").addEventListener("click", toggleLoop);
$("match").addEventListener("change", (event) => set({matched: event.target.checked}));
$("volume").addEventListener("input", (event) => player.setVolume(event.target.value ** 2));  // squared: even to the ear
$("help").addEventListener("click", () => $("keys").showModal());
for (const button of document.querySelectorAll("[data-act]")) button.addEventListener("click", () => {
  const {part} = button.closest("[data-part]").dataset;
  if (button.dataset.act === "mute") mute(part);
  else set({solo: state.solo === part ? null : part});
});
new ResizeObserver(move).observe($("screen"));
openSong();
set({});
requestAnimationFrame(frame);
