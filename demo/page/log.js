/*
 * The list of what the page asked and heard, newest first.  Whatever is shown
 * goes through shorten(): no token stands on the page in full.
 */

const list = document.getElementById('log');
const waiting = document.getElementById('waiting');

const MAX_ENTRIES = 100;

const SECRETS = [
    [/(nango_connect_session_[0-9a-f]{6})[0-9a-f]+/g, '$1\u2026'],
    [/\b((?:Bearer|Basic) \S{4})\S{8,}/g, '$1\u2026'],
];


export function shorten(value) {
    const text = typeof value === 'string' ? value
                                           : JSON.stringify(value, null, 2);

    return SECRETS.reduce((all, [secret, short]) =>
        all.replace(secret, short), text);
}


export function element(name, properties, ...children) {
    const { data, ...rest } = properties || {};
    const made = Object.assign(document.createElement(name), rest);

    Object.assign(made.dataset, data);
    made.append(...children);

    return made;
}


/* 200, 409, "no answer": with the colour of what it means. */
export function chip(status) {
    const kind = status >= 200 && status < 300 ? 'good'
                 : status >= 400 && status < 500 ? 'warn' : 'bad';

    return element('span', { className: `chip ${kind}` },
                   status ? String(status) : 'no answer');
}


function part(title, value) {
    return value === undefined || value === ''
           ? [] : [element('h3', {}, title),
                   element('pre', { tabIndex: 0 }, shorten(value))];
}


/*
 * entry: {from, what, origin?, status?, ms?, sent?, heard?}; from is "page",
 * "sdk" or "simulator", origin that of the endpoint if it is not the page's.
 */
export function note(entry) {
    const time = new Date().toLocaleTimeString([], { hour12: false });
    const more = [...part('Sent', entry.sent),
                  ...part(entry.from === 'sdk' ? 'Event' : 'Answered',
                          entry.heard)];
    const line = [
        element('time', {}, time),
        element('span', { className: `from ${entry.from}` }, entry.from),
        element('code', {}, ...(entry.origin ? [
            element('span', { className: 'origin' }, entry.origin), ' ',
        ] : []), shorten(entry.what)),
        ...(entry.status === undefined ? [] : [chip(entry.status)]),
        ...(entry.ms === undefined ? []
            : [element('span', { className: 'ms' },
                       `${Math.round(entry.ms)} ms`)]),
    ];
    const item = element('li', { data: { from: entry.from } },
        more.length > 0
            ? element('details', {}, element('summary', {}, ...line), ...more)
            : element('div', { className: 'line' }, ...line));

    list.prepend(item);

    while (list.children.length > MAX_ENTRIES) {
        list.lastChild.remove();
    }
}


/* The request that nginx holds until something changes. */
export function holding(what) {
    waiting.hidden = !what;
    waiting.textContent = what ? `nginx holds ${what}` : '';
}


export function clear() {
    list.replaceChildren();
}
