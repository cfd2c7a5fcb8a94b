// Draw the waveform and the spectrogram of what is heard: the input in one colour, the stem in another, on one dark screen.

const COLOURS = {input: [88, 196, 221], made: [255, 158, 88], target: [140, 214, 120], ceiling: [196, 160, 255]};
const LEFT = 46, BOTTOM = 22, WAVE = 0.34;  // room of the axes in pixels, and the waveform's part of the height
const DARKEST = -84, BRIGHTEST = -18;       // dB: what is drawn black and in full colour

class Views {
  constructor(canvas) {
    this.canvas = canvas;
    this.overviews = new Map();  // address -> promise of peaks and levels
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // tracks: {track, kind} of each that is heard; kind names its colour.
  async show(song, tracks) {
    this.song = song;
    const wanted = this.wanted = tracks.map(({track, kind}) => ({kind, seconds: song.tracks[track].seconds, asked: this.overview(`${song.key}/${track}/overview`)}));
    const shown = await Promise.all(wanted.map(async (one) => ({...one, ...await one.asked}))).catch(() => null);
    if (wanted !== this.wanted || !shown) return;
    this.shown = shown;
    this.draw();
  }

  overview(address) {
    if (!this.overviews.has(address)) this.overviews.set(address, loadMedia(address).then(decodeOverview));
    return this.overviews.get(address);
  }

  // Seconds of the song at a place of the canvas, and the place of a second.
  seconds(x) { return Math.max(0, Math.min(1, (x - LEFT) / (this.canvas.clientWidth - LEFT))) * this.song.seconds; }
  place(seconds) { return LEFT + (this.canvas.clientWidth - LEFT) * seconds / this.song.seconds; }

  draw() {
    const {canvas, song} = this, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!song || !width) return;
    const sharp = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    const pen = canvas.getContext("2d");
    pen.scale(sharp, sharp);
    const tall = Math.round((height - BOTTOM) * WAVE), top = tall + 6, low = height - BOTTOM - top;
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = "#0d1015";
    pen.fillRect(LEFT, 0, width - LEFT, tall);
    pen.fillRect(LEFT, top, width - LEFT, low);
    for (const one of this.shown ?? []) this.drawWave(pen, one, width, tall);
    if (this.shown?.length) this.drawSpectrogram(pen, width, top, low);
    this.drawAxes(pen, width, height, top, low);
  }

  drawWave(pen, {peaks, kind, seconds}, width, tall) {
    const across = (width - LEFT) * seconds / this.song.seconds, columns = peaks.length / 2, middle = tall / 2;
    pen.fillStyle = `rgba(${COLOURS[kind]}, ${this.shown.length > 1 ? 0.75 : 0.95})`;
    pen.fillRect(LEFT, middle - 0.5, across, 1);
    for (let x = 0; x < across; x++) {
      // Of several columns in a pixel, the highest.
      const from = Math.floor(x * columns / across), to = Math.max(from + 1, Math.floor((x + 1) * columns / across));
      let low = 0, high = 0;
      for (let at = from; at < to && at < columns; at++) {
        low = Math.min(low, peaks[2 * at]);
        high = Math.max(high, peaks[2 * at + 1]);
      }
      // Not linear, so that quiet parts are seen: as the ear hears them.
      const [up, down] = [high, -low].map((peak) => (peak / 127) ** 0.6 * (middle - 2));
      pen.fillRect(LEFT + x, middle - up, 1, up + down);
    }
  }

  drawSpectrogram(pen, width, top, low) {
    const rows = this.shown[0].rows, columns = Math.max(...this.shown.map((one) => one.columns));
    const longest = Math.max(...this.shown.map((one) => one.seconds));
    const picture = new ImageData(columns, rows);
    for (let at = 3; at < picture.data.length; at += 4) picture.data[at] = 255;
    for (const {levels, columns: own, kind, floor, seconds} of this.shown) {
      const wide = Math.min(columns, Math.ceil(columns * seconds / longest));  // of a clip, a part of the picture
      const colour = COLOURS[kind], values = Array.from({length: 256}, (_, grey) => {
        const part = Math.max(0, Math.min(1, (floor * (1 - grey / 255) - DARKEST) / (BRIGHTEST - DARKEST)));
        // Through the colour to nearly white.
        return colour.map((one) => part < 0.75 ? one * (part / 0.75) ** 1.6 : one + (255 - one) * (part - 0.75) * 2.4);
      });
      for (let y = 0; y < rows; y++) for (let x = 0; x < wide; x++) {
        const to = 4 * (y * columns + x), value = values[levels[y * own + Math.floor(x * own / wide)]];
        for (let c = 0; c < 3; c++) picture.data[to + c] += value[c];  // what is over 255 is clamped
      }
    }
    const small = document.createElement("canvas");
    [small.width, small.height] = [columns, rows];
    small.getContext("2d").putImageData(picture, 0, 0);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, LEFT, top, (width - LEFT) * longest / this.song.seconds, low);
  }

  drawAxes(pen, width, height, top, low) {
    pen.fillStyle = "#b4bcc8";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const axis = this.shown?.[0];
    for (const hz of axis ? [50, 100, 200, 500, 1000, 2000, 5000, 10000] : []) {
      const y = top + low * (1 - Math.log(hz / axis.low) / Math.log(axis.high / axis.low));
      if (hz >= axis.high || y < top + 18) continue;
      pen.fillText(hz < 1000 ? hz : `${hz / 1000}k`, LEFT - 8, y);
      pen.fillRect(LEFT - 4, y, 4, 1);
    }
    if (axis) pen.fillText("Hz", LEFT - 8, top + 6);
    const apart = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((one) => one / this.song.seconds * (width - LEFT) > 56) ?? 1200;
    pen.textBaseline = "alphabetic";
    for (let n = 0; n * apart <= this.song.seconds + 1e-6; n++) {
      const x = this.place(n * apart);
      pen.fillRect(Math.min(x, width - 1), height - BOTTOM, 1, 4);
      pen.textAlign = n ? (x > width - 20 ? "right" : "center") : "left";
      pen.fillText(apart < 60 && this.song.seconds < 90 ? `${+(n * apart).toFixed(1)} s` : clock(n * apart), x, height - 5);
    }
  }
}

// Peaks as numbers, and the levels of the grey picture, row by row from the highest frequency.
async function decodeOverview({peaks, picture, ...axes}) {
  const image = new Image();
  image.src = `data:image/png;base64,${picture}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, image.width, image.height).data;
  const levels = Uint8Array.from({length: image.width * image.height}, (_, at) => pixels[4 * at]);
  return {...axes, levels, columns: image.width, rows: image.height, peaks: Int8Array.from(atob(peaks), (c) => c.charCodeAt(0))};
}

// 83.25 as 1:23.
function clock(seconds, digits = 0) {
  const whole = seconds.toFixed(digits), minutes = Math.floor(whole / 60);
  return `${minutes}:${(whole - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}
