// The page: what its controls do, and what it says meanwhile.

import { $, clock, download, element, languageName, percent } from './dom.js';
import { record } from './live.js';
import * as player from './player.js';
import * as server from './server.js';
import { RATE, decode, loudest, wav } from './sound.js';
import { FORMATS } from './subtitles.js';
import * as words from './transcript.js';

const SHORTEST = 0.1 * RATE; // samples of a recording

let model = {}; // what the server has, and what it can do
const items = []; // the recordings of this visit: {file, recorded, answer}; answer is null until there is one
let item = null; // the one on the page
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

// Recordings and their transcripts.

async function open(file, recorded = false) {
  if (stop) return warn(new Error('Stop the recording first.'));
  if (!file.size) return warn(new Error(`${file.name} is empty: there is nothing in it to transcribe.`));
  const opened = { file, recorded, answer: null };
  items.push(opened);
  await Promise.all([choose(opened), transcribe()]);
}

/** Puts a recording on the page. It is seen and heard at once; its words may follow. */
async function choose(chosen) {
  request?.abort();
  calm();
  say('');
  item = chosen;
  $('items').replaceChildren(...items.map(itemButton));
  $('items').hidden = items.length < 2;
  $('again').hidden = false;
  $('like').disabled = false;
  $('save').hidden = !chosen.recorded;
  $('result').hidden = $('answer').hidden = true;
  $('facts').textContent = '';
  words.clear();
  player.unload();
  if (item.answer) showAnswer();
  const samples = await decode(chosen.file);
  if (item !== chosen) return;
  if (samples) $('result').hidden = false; // what the browser cannot decode, the server may
  player.load(chosen.file, samples);
}

function itemButton(listed) {
  const button = element('button', { type: 'button', 'aria-current': listed === item ? 'true' : null }, listed.file.name);
  button.addEventListener('click', () => choose(listed));
  return element('li', {}, button);
}

async function transcribe() {
  request?.abort();
  const own = (request = new AbortController());
  const chosen = item;
  calm();
  say(`Transcribing ${chosen.file.name} …`);
  working(true);
  words.clear();
  try {
    const options = { language: $('language').value, hotwords: $('hotwords').value.trim(), signal: own.signal };
    chosen.answer = await server.transcribe(chosen.file, options, (segment) => item === chosen && showSegment(segment));
    if (item === chosen) showAnswer();
  } catch (error) {
    if (request !== own || item !== chosen) return; // something else has been asked for meanwhile
    if (chosen.answer) showAnswer(); // of the time before
    if (error.name === 'AbortError') say('Cancelled; the recording is still here.');
    else warn(error, transcribe);
  } finally {
    if (request === own) {
      request = null;
      working(false);
    }
  }
}

function working(on) {
  $('cancel').hidden = !on;
  $('again').hidden = on;
}

function showSegment(segment) {
  $('result').hidden = $('answer').hidden = false;
  $('exports').hidden = true; // until all of it is there
  words.add(segment);
}

function showAnswer() {
  const { language, probabilities, duration } = item.answer;
  const guess = language ? [languageName(language) + (probabilities[language] ? `, ${percent(probabilities[language])}` : '')] : [];
  const said = item.answer.words.length;
  const count = `${said} ${said === 1 ? 'word' : 'words'}`;
  $('facts').textContent = [item.file.name, clock(duration, 1), count].join(' · ');
  $('result').hidden = $('answer').hidden = $('exports').hidden = false;
  words.show(item.answer);
  player.redraw();
  say(`Transcribed: ${[count, ...guess].join('; ')}.`);
}

function exported(name) {
  const { type, write } = FORMATS[name];
  download(new Blob([write(item.answer)], { type }), `${item.file.name.replace(/\.[^.]*$/, '')}.${name}`);
}

// The microphone.

async function startRecording() {
  calm();
  say('');
  $('record').disabled = true; // while the browser asks
  try {
    stop = await record(model.streams, $('language').value, stopRecording);
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
  if (samples.length < SHORTEST || !loudest(samples))
    return warn(new Error('Nothing was recorded: the microphone gave no sound. Check that it is not muted, then record again.'));
  const time = new Date().toTimeString().slice(0, 8).replaceAll(':', '-');
  await open(wav(samples, `recording-${time}.wav`), true);
}

function recordingShown(on) {
  $('recording').hidden = !on;
  $('waiting').hidden = $('choose').hidden = on;
  $('record').textContent = on ? 'Stop and transcribe' : 'Record';
  $('record').classList.toggle('on', on);
  if (on) say('Recording.');
}

// Search.

async function search(query) {
  calm();
  $('found').textContent = 'Searching …';
  try {
    const results = await server.search(query);
    $('found').textContent = results.length ? `${results.length} found, the nearest first.` : 'Nothing found.';
    $('results').replaceChildren(...results.map(resultItem));
  } catch (error) {
    $('found').textContent = '';
    warn(error, () => search(query));
  }
}

/** A sentence, or a stretch of a recording. */
function resultItem({ score, text, language, audio, start, end }) {
  const stretch = audio && `${clock(start, 1)}–${clock(end, 1)}`;
  const facts = [language && languageName(language), stretch, `similarity ${score.toFixed(2)}`].filter(Boolean).join(' · ');
  const name = element('p', text ? { lang: language, dir: 'auto' } : {}, text ?? audio);
  return element('li', {}, name, element('p', { class: 'quiet number' }, facts));
}

// What the server has.

async function begin() {
  try {
    [model] = await server.models();
    $('model').textContent = model.id;
    const named = model.languages.map((tag) => [languageName(tag), tag]).sort(([a], [b]) => a.localeCompare(b));
    $('language').append(...named.map(([name, tag]) => element('option', { value: tag }, name)));
    $('search').hidden = !model.searches;
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
$('save').addEventListener('click', () => download(item.file, item.file.name));
$('export').addEventListener('click', ({ target }) => target.dataset.format && exported(target.dataset.format));
$('copy').addEventListener('click', async () => {
  await navigator.clipboard.writeText(item.answer.text);
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
  search($('query').value);
});
$('like').addEventListener('click', () => search(item.file));

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
player.follow(words.mark);
begin();
