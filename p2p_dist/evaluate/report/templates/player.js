"use strict";
// Play the tracks of a song together, to the sample, and change what is heard without a gap.
//
// A page opened from disk may not fetch files, and two <audio> elements do not keep in step. So sounds are script files that call
// mediaLoaded(address, content); their segments are decoded to buffers and started by one clock, that of the AudioContext.

// Contents that were asked for and have not arrived: address -> what to do with them.
const arriving = new Map();

function mediaLoaded(address, content) {
  arriving.get(address)?.(content);
  arriving.delete(address);
}

// The content of media/ADDRESS.js, once.
function loadMedia(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    arriving.set(address, resolve);
    script.onload = () => script.remove();
    script.onerror = () => { script.remove(); arriving.delete(address); reject(new Error(`media/${address}.js is missing`)); };
    script.src = `media/${address}.js`;
    document.head.append(script);
  });
}

const START = 0.02;   // seconds from a command to its sound: enough for the browser to prepare it
const FADE = 0.005;   // time constant of a change of what is heard, seconds: no click, and no gap
const EDGE = 0.003;   // seconds of fading where a loop jumps
const AHEAD = 2.5;    // seconds planned before they sound: timers of a hidden page come once a second
const KEPT = 400;     // seconds of decoded segments: about 140 MB in stereo

class Player {
  // song: key, seconds, rate, tracks. segment, margin: seconds of a file, and by which it overlaps its neighbours.
  constructor(segment, margin, changed) {
    Object.assign(this, {segment, margin, changed, volume: 1, loop: null, playing: false, waiting: false, heard: new Map()});
    this.buffers = new Map();   // address -> decoded segment, the longest unused first
    this.requests = new Map();  // address -> promise of it
    this.voices = new Map();    // track -> its gain and sources, of what sounds now
    this.plan = [];             // what sounds when: {when, from, to} in seconds of the clock and of the song
    this.at = 0;                // the position while nothing plays
    this.turn = 0;              // counts commands: one that waited for a file gives way to a later one
  }

  // Another song, from its start, or from the same position.
  open(song, at = 0) {
    this.pause();
    if (this.context && this.context.sampleRate !== song.rate) { this.context.close(); this.context = null; this.buffers.clear(); }
    this.song = song;
    this.at = Math.min(at, song.seconds);
    this.loop = null;
  }

  now() { return this.context ? this.context.currentTime : 0; }

  // Position in the song, seconds. What is planned is heard a little later.
  position() {
    if (!this.plan.length) return this.at;
    const time = this.now() - (this.context.outputLatency || 0);
    const piece = this.plan.findLast((one) => one.when <= time) ?? this.plan[0];
    return Math.max(piece.from, Math.min(piece.to, piece.from + time - piece.when));
  }

  // What is heard: a Map from track to gain (a factor). While it is not decoded, what was heard before goes on.
  async choose(heard) {
    this.heard = heard;
    if (!this.playing) return;
    if (this.waiting) return this.begin(this.aim);  // it goes where the last command wanted it
    const turn = ++this.turn;
    if (!this.plan.length) return this.begin(this.at);
    // All that is planned must be there in the new tracks, too.
    for (;;) {
      this.plan = this.plan.filter((one, at) => at === this.plan.length - 1 || one.when + one.to - one.from > this.now());
      if (!this.plan.some((one) => this.missing(one.from, heard).length)) break;
      try { await Promise.all(this.plan.map((one) => this.decoded(one.from, heard))); } catch (error) { this.changed(error); return; }
      if (turn !== this.turn || !this.playing || !this.plan.length) return;
    }
    const time = this.frame(this.now() + START);
    for (const [track, voice] of this.voices) if (!heard.has(track)) this.retire(track, voice, time);
    for (const [track, gain] of heard) {
      const voice = this.voices.get(track);
      if (voice) voice.gain.gain.setTargetAtTime(gain, time, FADE);
      else this.start(track, gain, time);
    }
    this.look();
  }

  async play() {
    if (this.playing) return;
    this.playing = true;
    this.begin(this.at >= this.song.seconds - 0.02 ? 0 : this.at);
  }

  pause() {
    if (!this.playing) return;
    this.at = this.waiting ? this.aim : this.position();
    this.halt();
    this.changed();
  }

  seek(at) {
    at = Math.max(0, Math.min(at, this.song.seconds));
    if (this.playing) this.begin(at);
    else this.at = at;
    this.changed();
  }

  setVolume(volume) {
    this.volume = volume;
    if (this.context) this.master.gain.setTargetAtTime(volume, this.now(), FADE);
  }

  // {from, to} in seconds, or null.
  setLoop(loop) {
    this.loop = loop;
    if (!this.playing) return;
    const at = this.position();
    this.begin(loop && (at < loop.from || at >= loop.to) ? loop.from : at);
  }

  // Play from here, in place of what plays.
  async begin(at) {
    const turn = ++this.turn;
    if (!this.context) {
      // At the rate of the files: their segments then join to the sample.
      this.context = new AudioContext({sampleRate: this.song.rate, latencyHint: "interactive"});
      this.master = this.context.createGain();
      this.master.gain.value = this.volume;
      this.master.connect(this.context.destination);
    }
    this.context.resume();
    this.waiting = true;
    this.aim = at;              // the position that it waits for
    this.changed();
    try {
      await this.decoded(at, this.heard);
    } catch (error) {
      if (turn === this.turn) { this.at = at; this.halt(); this.changed(error); }
      return;
    }
    if (turn !== this.turn || !this.playing) return;
    this.waiting = false;
    const time = this.frame(this.now() + START);
    for (const [track, voice] of this.voices) this.retire(track, voice, time);
    this.plan = [this.piece(this.frame(at), time, false)];
    for (const [track, gain] of this.heard) this.start(track, gain, time);
    clearInterval(this.timer);
    this.timer = setInterval(() => this.look(), 100);
    this.look();
    this.changed();
  }

  halt() {
    this.turn++;
    this.playing = this.waiting = false;
    this.plan = [];
    clearInterval(this.timer);
    for (const [track, voice] of this.voices) this.retire(track, voice, this.now());
  }

  // Plan what comes next, and load what will be needed.
  look() {
    if (!this.plan.length) return;
    for (;;) {
      const last = this.plan.at(-1), ends = last.when + last.to - last.from;
      let from = last.to, jumps = false;
      if (this.loop && Math.abs(from - this.loop.to) < 1e-6) { from = this.loop.from; jumps = true; }
      if (from >= this.song.seconds - 1e-6) {
        if (this.now() > ends) { this.at = this.song.seconds; this.halt(); this.changed(); }
        return;
      }
      const needed = this.missing(from, this.heard);
      for (const address of needed) this.request(address).catch(() => {});
      if (ends - this.now() > AHEAD) return;
      if (needed.length) {
        if (this.now() > ends && !this.waiting) this.begin(from);  // too late: it goes on when they are there
        return;
      }
      const piece = this.piece(from, ends, jumps);
      this.plan.push(piece);
      if (this.plan.length > 4) this.plan.shift();
      for (const [track, voice] of this.voices) this.sound(track, voice, piece);
      this.changed();
    }
  }

  piece(from, when, jumps) {
    let to = Math.min((Math.floor(from / this.segment + 1e-9) + 1) * this.segment, this.song.seconds);
    const turns = this.loop && from < this.loop.to && this.loop.to <= to;
    if (turns) to = this.loop.to;
    return {from, to, when, fadesIn: jumps, fadesOut: turns};
  }

  start(track, gain, time) {
    const voice = {gain: this.context.createGain(), sources: new Set(), since: time};
    voice.gain.gain.value = 0;
    voice.gain.gain.setTargetAtTime(gain, time, FADE);
    voice.gain.connect(this.master);
    this.voices.set(track, voice);
    for (const piece of this.plan) this.sound(track, voice, piece);
  }

  // One piece of one track: a track that is shorter than the song is silent at the end.
  sound(track, voice, piece) {
    const number = Math.floor(piece.from / this.segment + 1e-9), begins = Math.max(0, number * this.segment - this.margin);
    const address = this.address(track, number), buffer = this.buffers.get(address);
    const late = Math.max(0, voice.since - piece.when);
    const from = piece.from + late, when = piece.when + late, to = Math.min(piece.to, this.song.tracks[track].seconds);
    if (!buffer || to <= from) return;
    this.buffers.delete(address);
    this.buffers.set(address, buffer);  // the last that was used
    const source = this.context.createBufferSource(), edges = this.context.createGain();
    source.buffer = buffer;
    source.connect(edges).connect(voice.gain);
    if (piece.fadesIn) { edges.gain.setValueAtTime(0, when); edges.gain.linearRampToValueAtTime(1, when + EDGE); }
    if (piece.fadesOut) { edges.gain.setValueAtTime(1, when + to - from - EDGE); edges.gain.linearRampToValueAtTime(0, when + to - from); }
    source.start(when, from - begins, to - from);
    voice.sources.add(source);
    source.onended = () => { voice.sources.delete(source); edges.disconnect(); };
  }

  retire(track, voice, time) {
    this.voices.delete(track);
    voice.gain.gain.cancelScheduledValues(time);
    voice.gain.gain.setTargetAtTime(0, time, FADE);
    for (const source of voice.sources) source.stop(time + 10 * FADE);
    setTimeout(() => voice.gain.disconnect(), 1000);
  }

  address(track, number) { return `${this.song.key}/${track}/${number}`; }

  // Addresses of segments at this position that are not decoded.
  missing(at, heard) {
    const number = Math.floor(at / this.segment + 1e-9);
    const tracks = [...heard.keys()].filter((track) => number < this.song.tracks[track].segments);
    return tracks.map((track) => this.address(track, number)).filter((address) => !this.buffers.has(address));
  }

  decoded(at, heard) {
    return Promise.all(this.missing(Math.min(at, this.song.seconds - 1e-3), heard).map((address) => this.request(address)));
  }

  // Load and decode one segment.
  request(address) {
    if (!this.requests.has(address)) {
      const asked = this.decode(address);
      this.requests.set(address, asked);
      asked.catch(() => {}).finally(() => this.requests.delete(address));
    }
    return this.requests.get(address);
  }

  async decode(address) {
    if (this.buffers.has(address)) return;
    const context = this.context, letters = atob(await loadMedia(address)), bytes = new Uint8Array(letters.length);
    for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at);
    const buffer = await context.decodeAudioData(bytes.buffer);
    if (context !== this.context) return;  // of another song, at another rate
    this.buffers.set(address, buffer);
    const using = new Set([...this.heard.keys()].map((track) => this.address(track, Math.floor(this.position() / this.segment))));
    for (const old of this.buffers.keys()) {
      if (this.buffers.size * this.segment <= KEPT) break;
      if (!using.has(old)) this.buffers.delete(old);
    }
  }

  // Have other tracks ready at the position, one after the other; a later call takes the place of an earlier one.
  async prepare(tracks) {
    const wanted = this.wanted = {};
    for (const track of tracks) {
      const places = [this.position(), ...this.plan.slice(-1).map((one) => one.from)];
      for (const address of this.context ? places.flatMap((at) => this.missing(at, new Map([[track, 1]]))) : []) {
        await this.request(address).catch(() => {});
        if (wanted !== this.wanted) return;
      }
    }
  }

  frame(seconds) { return Math.round(seconds * this.song.rate) / this.song.rate; }
}
