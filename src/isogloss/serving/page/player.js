// The recording: heard, and seen as waveform and spectrogram, a window of it at a time.

import { drawSpectrogram, drawWaveform } from './picture.js';
import { RATE, loudest, wav } from './sound.js';
import { $, clock, element } from './dom.js';

const WINDOW = 20; // seconds seen at once
const MARGIN = 0.04; // seconds after a word that are heard with it

const audio = $('audio');
let samples = null;
let peak = 1;
let shown = [0, 1]; // seconds seen
let until = Infinity; // where playing stops
let onTime = () => {};

/** Shows and loads a recording. decoded: its samples, null where the browser cannot decode it. */
export function load(file, decoded) {
  URL.revokeObjectURL(audio.src);
  samples = decoded;
  peak = decoded && (loudest(decoded) || 1);
  // Of decoded samples every position is exact, which the browsers' own seeking in MP3 and WebM is not.
  audio.src = URL.createObjectURL(decoded ? wav(decoded, file.name) : file);
  $('picture').hidden = !decoded;
  free();
  playable(true);
  seen(0);
  moved();
}

/** Takes a recording off the page. */
export function unload() {
  audio.pause();
  $('player').hidden = $('unplayable').hidden = true;
}

/** Plays from `start` to `end` seconds. */
export function playStretch(start, end) {
  until = end + MARGIN;
  audio.currentTime = start;
  if (start < shown[0] || end > shown[1]) seen(start);
  placed(placed($('stretch'), start), end, '--end').hidden = false;
  audio.play();
}

/** `tell(seconds)` is called while time passes, and after a jump. */
export function follow(tell) {
  onTime = tell;
}

function duration() {
  return samples ? samples.length / RATE : audio.duration || 0;
}

function seen(from) {
  const length = Math.min(WINDOW, duration());
  shown = [from, from + length];
  redraw();
}

/** Draws what is seen, which needs a place on the page: again after that has changed. */
export function redraw() {
  if (!samples || !$('waveform').clientWidth) return;
  const [from, to] = shown.map((second) => Math.round(second * RATE));
  drawWaveform($('waveform'), samples, from, to, peak);
  drawSpectrogram($('spectrogram'), samples, from, to);
  $('scale').replaceChildren(...ticks());
}

/** Times to write under the picture: round, and few enough for a narrow screen. */
function ticks() {
  const [from, to] = shown;
  const step = [0.1, 0.2, 0.5, 1, 2, 5].find((size) => (to - from) / size <= 7) ?? to - from;
  const count = Math.ceil((to - from) / step - 0.2) - 1; // none near the end
  return Array.from({ length: count }, (_, i) => from + step * (i + 1))
    .map((second) => placed(element('span', {}, clock(second, step < 1 ? 1 : 0)), second));
}

/** An element at its second of the picture. */
function placed(made, second, name = '--at') {
  made.style.setProperty(name, (second - shown[0]) / (shown[1] - shown[0]));
  return made;
}

function playable(can) {
  $('player').hidden = !can;
  $('unplayable').hidden = can;
}

function moved() {
  const now = audio.currentTime;
  const [from, to] = shown;
  if (samples && (now < from || now > to)) seen(Math.floor(now / WINDOW) * WINDOW);
  placed($('cursor'), now);
  $('seek').max = duration();
  $('seek').value = now;
  $('seek').setAttribute('aria-valuetext', `${clock(now, 1)} of ${clock(duration(), 1)}`);
  $('time').textContent = `${clock(now, 1)} / ${clock(duration(), 1)}`;
  if (now) onTime(Math.min(now, until - MARGIN - 0.001)); // what follows a word that is played alone is not marked
}

function tick() {
  if (audio.currentTime >= until) {
    audio.pause();
    audio.currentTime = until; // where a busy browser comes too late
  }
  moved();
  if (!audio.paused) requestAnimationFrame(tick);
}

/** From here on the recording plays to its end. */
function free() {
  until = Infinity;
  $('stretch').hidden = true;
}

function jump(event) {
  const { left, width } = event.currentTarget.getBoundingClientRect();
  free();
  audio.currentTime = shown[0] + ((event.clientX - left) / width) * (shown[1] - shown[0]);
}

$('play').addEventListener('click', () => {
  free();
  if (audio.paused) audio.play();
  else audio.pause();
});
$('seek').addEventListener('input', () => {
  free();
  audio.currentTime = Number($('seek').value);
});
for (const picture of ['waveform', 'spectrogram']) $(picture).addEventListener('pointerdown', jump);
for (const event of ['play', 'pause'])
  audio.addEventListener(event, () => {
    $('play').classList.toggle('playing', !audio.paused);
    $('play').setAttribute('aria-label', audio.paused ? 'Play' : 'Pause');
    if (!audio.paused) requestAnimationFrame(tick);
  });
for (const event of ['seeked', 'loadedmetadata', 'ended']) audio.addEventListener(event, moved);
audio.addEventListener('error', () => playable(false));
addEventListener('resize', redraw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
