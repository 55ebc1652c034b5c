/*
 * What a page asks of nginx-nango, one function a request.  Each resolves to
 * {status, code, body}: code is nginx-nango's own, so that its 404 is not
 * taken for a provider's.  What could not be answered at all, or not be read,
 * has the status 0.
 */

import { holding, note } from './log.js';

/* Where the endpoints are: "" is the page's own origin. */
let base = '';

export const LONGEST_WAIT = 25;


export function setBase(origin) {
    base = origin;
}


export async function request(method, path, options) {
    const { body, from = 'page', origin = '', signal, quiet } = options || {};
    const start = performance.now();
    let code = null;
    const entry = {
        from, origin, sent: body, what: `${method} ${path}`,
    };

    try {
        const response = await fetch(origin + path, {
            method,
            signal,
            /* Another origin gets the cookie only if it is told to. */
            credentials: origin ? 'include' : 'same-origin',
            headers: body ? { 'Content-Type': 'application/json' } : {},
            body: body && JSON.stringify(body),
        });
        const text = await response.text();

        code = response.headers.get('X-Nango-Error');
        Object.assign(entry, { status: response.status, heard: text });
        entry.heard = JSON.parse(text);

    } catch (e) {
        if (e.name === 'AbortError') {
            return { status: 0, aborted: true };
        }

        if (entry.status === undefined) {
            Object.assign(entry, { status: 0, heard: e.message });
        }
    }

    entry.ms = performance.now() - start;

    if (!quiet || !quiet(entry)) {
        note(entry);
    }

    return { status: entry.status, code, body: entry.heard };
}


function nango(method, path, options) {
    return request(method, path, { ...options, origin: base });
}


export function catalog(signal) {
    return nango('GET', '/nango/catalog', { signal });
}


export function session(integration) {
    return nango('POST', '/nango/session', { body: { integration } });
}


/* A token to authorise a connection again. */
export function reconnect(id) {
    return nango('POST', '/nango/reconnect', { body: { id } });
}


export function connections(signal) {
    return nango('GET', '/nango/connections', { signal });
}


/* Held until something of the caller's has changed after that event. */
export async function change(sequence, signal) {
    const path = `/nango/connections?since=${sequence}&wait=${LONGEST_WAIT}`;

    holding(`GET ${base}${path}`);

    const answer = await nango('GET', path, {
        signal,
        quiet: ({ status, heard }) => status === 200 && !heard.changed,
    });

    if (!answer.aborted) {
        holding('');
    }

    return answer;
}


/* Asks Nango now; where no webhook arrives, a new connection is found so. */
export function verify(integration, connectionId) {
    return nango('POST', '/nango/connections', {
        body: { integration, connection_id: connectionId },
    });
}


export function disconnect(id) {
    return nango('DELETE', `/nango/connections?id=${id}`);
}


/* To the provider, through Nango's proxy: nango_require ... proxy. */
export function useProxy(integration, path) {
    return nango('GET', `/proxy/${encodeURIComponent(integration)}/${path}`);
}


/* To the application's own backend, which is where the page is. */
export function useBackend(integration) {
    return request('GET', `/app/report/${encodeURIComponent(integration)}`);
}
