/*
 * How the API answers: status, headers, body.  Two sets of headers exist:
 * "full" (the default) is of the size and kind that Nango really sends, about
 * 2 KB; "short" is what the captures kept of it.  A reply is a plain object
 * {status, type, headers, body}, so that faults can spoil it before it goes.
 */

'use strict';

const crypto = require('node:crypto');
const http = require('node:http');

const KEEP_ALIVE = 61;

const EXPOSED = 'Authorization, Etag, Content-Type, Content-Length, '
                + 'X-Nango-Signature, X-RateLimit-Limit, '
                + 'X-RateLimit-Remaining, X-RateLimit-Reset';

const ALLOWED = 'Authorization, Content-Type, Accept, Origin, '
                + 'X-Requested-With, Nango-Activity-Log-Id, '
                + 'Nango-Is-Dry-Run, Nango-Is-Sync, Provider-Config-Key, '
                + 'Connection-Id, Sentry-Trace, Baggage';

/* Of the length of Nango's; the words in it matter to nobody here. */
const SOURCES = "'self' http://localhost:3003 http://localhost:3009/ "
                + 'https://*.example.com https://*.example.net';

const POLICY = ['default', 'child', 'connect', 'font', 'frame', 'img',
                'manifest', 'media', 'object', 'script', 'style', 'worker']
    .map((kind) => `${kind}-src ${SOURCES}`).join(';')
    + ";base-uri 'self';frame-ancestors 'self'";

const BEFORE = ['X-XSS-Protection', '0'];

const NOSNIFF = ['X-Content-Type-Options', 'nosniff'];

const AFTER = [
    'X-Download-Options', 'noopen',
    'X-Frame-Options', 'SAMEORIGIN',
    'X-DNS-Prefetch-Control', 'off',
    'Referrer-Policy', 'strict-origin',
    'Strict-Transport-Security', 'max-age=5184000; includeSubDomains',
    'Content-Security-Policy-Report-Only', POLICY,
];

const CORS = [
    'Access-Control-Allow-Origin', '*',
    'Access-Control-Expose-Headers', EXPOSED,
];

const PREFLIGHT = [
    'Access-Control-Allow-Origin', '*',
    'Access-Control-Allow-Methods', 'GET,HEAD,PUT,PATCH,POST,DELETE',
    'Access-Control-Allow-Headers', ALLOWED,
    'Access-Control-Max-Age', '600',
    'Access-Control-Expose-Headers', EXPOSED,
];

const JSON_TYPE = 'application/json; charset=utf-8';
const HTML_TYPE = 'text/html; charset=utf-8';


function json(status, value, headers) {
    return {
        status,
        type: JSON_TYPE,
        headers: headers || [],
        body: JSON.stringify(value),
    };
}


function html(status, text) {
    return { status, type: HTML_TYPE, headers: [], body: text };
}


function empty(status) {
    return { status, type: null, headers: [], body: '' };
}


/* The three shapes of an error. */

function error(status, code, message) {
    return json(status, { error: { code, message } });
}


function invalid(code, errors) {
    return json(400, { error: { code, errors } });
}


function unauthorized(code, message) {
    return json(401, { error: { message, code, payload: {} } });
}


/*
 * The header lines of a reply as a flat list; what the server itself adds at
 * the end (Date, Connection, Keep-Alive) is not among them.
 */
function headerLines(reply, set) {
    const full = set === 'full';
    const lines = full ? [...BEFORE, ...NOSNIFF, ...AFTER] : [...NOSNIFF];

    lines.push(...(reply.preflight ? PREFLIGHT : CORS));
    lines.push(...reply.headers);

    if (reply.type) {
        lines.push('Content-Type', reply.type);
    }

    if (reply.status !== 204) {
        const length = Buffer.byteLength(reply.body);

        lines.push('Content-Length', String(length));

        if (full && length > 0) {
            const digest = crypto.createHash('sha1').update(reply.body)
                .digest('base64').slice(0, 27);

            lines.push('ETag', `W/"${length.toString(16)}-${digest}"`);
        }
    }

    return lines;
}


function send(res, reply, set) {
    res.writeHead(reply.status, headerLines(reply, set));
    res.end(reply.body);
}


/* The whole reply as bytes, for faults that cut it where they like. */
function raw(reply, set) {
    const lines = headerLines(reply, set);
    let head = `HTTP/1.1 ${reply.status} `
               + `${http.STATUS_CODES[reply.status] || 'Unknown'}\r\n`;

    for (let i = 0; i < lines.length; i += 2) {
        head += `${lines[i]}: ${lines[i + 1]}\r\n`;
    }

    head += `Date: ${new Date().toUTCString()}\r\n`
            + 'Connection: keep-alive\r\n'
            + `Keep-Alive: timeout=${KEEP_ALIVE}\r\n\r\n`;

    return Buffer.from(head + reply.body);
}


module.exports = {
    KEEP_ALIVE, JSON_TYPE,
    json, html, empty, error, invalid, unauthorized, send, raw,
};
