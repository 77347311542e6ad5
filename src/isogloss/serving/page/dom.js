// Small tools for the page's elements.

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children; an attribute that is null is left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Seconds as 1:02:03.4; hours only where there are any. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const whole = Math.round(seconds * unit);
  const [hours, minutes] = [Math.floor(whole / unit / 3600), Math.floor(whole / unit / 60) % 60];
  const rest = ((whole / unit) % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, '0');
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

const names = new Intl.DisplayNames(navigator.languages, { type: 'language', fallback: 'code' });

export function languageName(tag) {
  try {
    return names.of(tag);
  } catch {
    return tag; // no BCP 47 tag
  }
}

/** Hands the reader a file. */
export function download(blob, name) {
  const link = element('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
