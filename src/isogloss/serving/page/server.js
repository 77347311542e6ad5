// The server's API. Every failure is an Error whose message is one sentence to show.

let key = sessionStorage.getItem('key') ?? '';

export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function setKey(value) {
  key = value;
  sessionStorage.setItem('key', value);
}

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal('The server cannot be reached; the recording is kept here, so try again when it is back.', 0);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new Refusal(answer?.error?.message ?? `The server answered ${response.status} ${response.statusText}.`, response.status);
}

/** The models served: [{id, languages, streams, searches, …}]. */
export async function models() {
  return (await call('v1/models')).data;
}

/** A file's transcript as verbose_json, with words and segments. */
export function transcribe(file, { model, language, hotwords, signal }) {
  const form = new FormData();
  form.append('file', file);
  form.append('model', model);
  form.append('response_format', 'verbose_json');
  form.append('timestamp_granularities[]', 'word');
  form.append('timestamp_granularities[]', 'segment');
  if (language) form.append('language', language);
  if (hotwords) form.append('prompt', hotwords);
  return call('v1/audio/transcriptions', { method: 'POST', body: form, signal });
}

/** Recordings and texts of the index near a query: [{id, score, text, language, audio}]. */
export async function search(query, count = 10) {
  const body = JSON.stringify({ query, count });
  return (await call('v1/search', { method: 'POST', body, headers: { 'Content-Type': 'application/json' } })).results;
}

/** A socket that takes chunks of PCM and tells `tell` each message of the server. */
export function realtime(language, tell) {
  const url = new URL('v1/realtime', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  if (language) url.searchParams.set('language', language);
  // A browser's socket has no headers: the key travels as a subprotocol, as in OpenAI's API.
  const socket = new WebSocket(url, key ? ['realtime', `openai-insecure-api-key.${key}`] : []);
  const early = []; // said before the socket was open
  socket.onopen = () => early.splice(0).forEach((message) => socket.send(message));
  socket.onmessage = ({ data }) => tell(JSON.parse(data));
  const send = (message) => {
    if (socket.readyState === WebSocket.CONNECTING) early.push(message);
    else if (socket.readyState === WebSocket.OPEN) socket.send(message);
  };
  return { send, finish: () => send('{"type":"finish"}'), close: () => socket.close() };
}
