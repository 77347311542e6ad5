// The page: what its controls do, and what it says meanwhile.

import { $, clock, download, element, languageName, percent } from './dom.js';
import { record } from './live.js';
import * as player from './player.js';
import * as server from './server.js';
import { RATE, decode, wav } from './sound.js';
import { FORMATS } from './subtitles.js';
import { mark, show } from './transcript.js';

const SHORTEST = 0.1 * RATE; // samples of a recording

let model = '';
let file = null; // the recording in hand
let transcript = null;
let request = null; // AbortController of the one under way
let stop = null; // ends the recording under way
let retry = null; // what failed for want of a key

// What the page says.

function say(sentence) {
  $('status').textContent = sentence;
}

function warn(error, again = null) {
  say('');
  $('alert').textContent = error.message;
  $('alert').hidden = false;
  if (error.status !== 401) return;
  retry = again;
  $('key-form').hidden = false;
  $('key').focus();
}

function calm() {
  $('alert').hidden = true;
}

// A recording and its transcript.

async function open(chosen) {
  if (stop) return warn(new Error('Stop the recording first.'));
  if (!chosen.size) return warn(new Error(`${chosen.name} is empty: there is nothing in it to transcribe.`));
  file = chosen;
  transcript = null;
  $('result').hidden = $('answer').hidden = true;
  $('facts').textContent = '';
  const decoding = decode(file).then((samples) => {
    // Seen and heard at once; its words follow. What the browser cannot decode, the server may.
    if (file !== chosen) return;
    if (samples) $('result').hidden = false;
    player.load(file, samples);
  });
  await Promise.all([decoding, transcribe()]);
}

async function transcribe() {
  request?.abort();
  const own = (request = new AbortController());
  const chosen = file;
  calm();
  say(`Transcribing ${chosen.name} …`);
  $('cancel').hidden = false;
  $('again').hidden = true;
  try {
    const options = { model, language: $('language').value, hotwords: $('hotwords').value.trim(), signal: own.signal };
    const answer = await server.transcribe(chosen, options);
    if (request === own) finished(answer);
  } catch (error) {
    if (request !== own) return; // another request has taken its place
    if (error.name === 'AbortError') say('Cancelled; the recording is still here.');
    else warn(error, transcribe);
  } finally {
    if (request === own) {
      request = null;
      $('cancel').hidden = true;
      $('again').hidden = false;
    }
  }
}

function finished(answer) {
  transcript = answer;
  const { language, languages = {}, words = [], duration } = answer;
  const guess = language ? [languageName(language) + (languages[language] ? `, ${percent(languages[language])}` : '')] : [];
  const count = `${words.length} ${words.length === 1 ? 'word' : 'words'}`;
  $('facts').textContent = [file.name, clock(duration, 1), count].join(' · ');
  $('result').hidden = $('answer').hidden = false;
  show(answer);
  player.redraw();
  say(`Transcribed: ${[count, ...guess].join('; ')}.`);
}

function exported(name) {
  const { type, write } = FORMATS[name];
  download(new Blob([write(transcript)], { type }), `${file.name.replace(/\.[^.]*$/, '')}.${name}`);
}

// The microphone.

async function startRecording() {
  calm();
  say('');
  $('record').disabled = true; // while the browser asks
  try {
    stop = await record($('language').value, stopRecording);
    recordingShown(true);
  } catch (error) {
    warn(error);
  } finally {
    $('record').disabled = false;
  }
}

async function stopRecording() {
  const ending = stop;
  recordingShown(false);
  const samples = await ending();
  stop = null;
  if (samples.length < SHORTEST || samples.every((value) => value === 0))
    return warn(new Error('Nothing was recorded: the microphone gave no sound. Check that it is not muted, then record again.'));
  const time = new Date().toTimeString().slice(0, 8).replaceAll(':', '-');
  await open(wav(samples, `recording-${time}.wav`));
}

function recordingShown(on) {
  $('recording').hidden = !on;
  $('waiting').hidden = $('choose').hidden = on;
  $('record').textContent = on ? 'Stop and transcribe' : 'Record';
  if (on) say('Recording.');
}

// Search.

async function search() {
  calm();
  $('found').textContent = 'Searching …';
  try {
    const results = await server.search($('query').value);
    $('found').textContent = results.length ? `${results.length} found, the nearest first.` : 'Nothing found.';
    $('results').replaceChildren(...results.map(({ id, score, text, language, audio }) => element('li', {},
      element('p', { lang: language || null, dir: 'auto' }, text || id),
      element('p', { class: 'quiet number' }, [language && languageName(language), score.toFixed(3), audio].filter(Boolean).join(' · ')))));
  } catch (error) {
    $('found').textContent = '';
    warn(error, search);
  }
}

// What the server has.

async function begin() {
  try {
    const [first] = await server.models();
    model = first.id;
    $('model').textContent = first.id;
    const named = (first.languages ?? []).map((tag) => [languageName(tag), tag]).sort(([a], [b]) => a.localeCompare(b));
    $('language').append(...named.map(([name, tag]) => element('option', { value: tag }, name)));
    $('search').hidden = !first.searches;
  } catch (error) {
    warn(error, begin);
  }
}

$('record').addEventListener('click', () => (stop ? stopRecording() : startRecording()));
$('choose').addEventListener('click', () => $('file').click());
$('file').addEventListener('change', () => {
  const [chosen] = $('file').files;
  $('file').value = ''; // the same file can be chosen again
  if (chosen) open(chosen);
});
$('cancel').addEventListener('click', () => request?.abort());
$('again').addEventListener('click', transcribe);
$('export').addEventListener('click', ({ target }) => target.dataset.format && exported(target.dataset.format));
$('copy').addEventListener('click', async () => {
  await navigator.clipboard.writeText(transcript.text);
  say('Copied.');
});
$('copy').hidden = !navigator.clipboard; // given to pages from localhost or over https
$('details').addEventListener('change', () => $('words').classList.toggle('detailed', $('details').checked));
$('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  server.setKey($('key').value);
  $('key-form').hidden = true;
  calm();
  retry?.();
});
$('search-form').addEventListener('submit', (event) => {
  event.preventDefault();
  search();
});

addEventListener('dragover', (event) => {
  event.preventDefault();
  $('drop').classList.add('over');
});
addEventListener('dragleave', (event) => event.relatedTarget || $('drop').classList.remove('over'));
addEventListener('drop', (event) => {
  event.preventDefault();
  $('drop').classList.remove('over');
  const [chosen] = event.dataTransfer.files;
  if (chosen) open(chosen);
});
addEventListener('beforeunload', (event) => stop && event.preventDefault());
player.follow(mark);
begin();
