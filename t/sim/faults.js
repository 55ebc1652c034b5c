/*
 * Planted faults of the API.  A fault names the requests it strikes (method,
 * path, how many to let pass first, how many times) and what it does to
 * them:
 *
 *   delay_ms          the answer comes late; may go with any other effect
 *   hang              never answers; the connection stays open
 *   status            answers this instead, with retry_after, headers, body
 *   cut_after         sends that many bytes of the answer and closes
 *   reset             closes by RST instead of FIN
 *   bad_json          the body ends in the middle of a value
 *   huge              the body is padded by that many bytes
 *   content_type      says this is the type
 *   body              replaces the body
 *
 * hang and status strike before the request has any effect, the others after
 * it took place: an answer lost on its way is not a request not made.  "act"
 * turns that about.
 */

'use strict';

const reply = require('./reply');

const KNOWN = ['method', 'path', 'skip', 'times', 'act', 'delay_ms', 'hang',
               'status', 'retry_after', 'headers', 'cut_after', 'reset',
               'bad_json', 'huge', 'content_type', 'body'];


class Faults {
    constructor() {
        this.list = [];
        this.lastId = 0;
    }

    clear() {
        this.list = [];
    }

    /* Returns the fault's id; a misspelt effect must not pass unnoticed. */
    add(spec) {
        for (const key of Object.keys(spec)) {
            if (!KNOWN.includes(key)) {
                throw new Error(`unknown member "${key}" of a fault`);
            }
        }

        const fault = { ...spec, id: ++this.lastId, seen: 0, hits: 0 };

        this.list.push(fault);

        return fault.id;
    }

    /* A path that ends in * stands for all that begin so. */
    matches(fault, method, path) {
        if (fault.method && fault.method !== method) {
            return false;
        }

        if (!fault.path) {
            return true;
        }

        return fault.path.endsWith('*')
               ? path.startsWith(fault.path.slice(0, -1))
               : path === fault.path;
    }

    /* The fault that strikes this request, or null. */
    strike(method, path) {
        for (const fault of this.list) {
            if (!this.matches(fault, method, path)) {
                continue;
            }

            fault.seen++;

            if (fault.seen <= (fault.skip || 0)
                || (fault.times !== undefined && fault.hits >= fault.times))
            {
                continue;
            }

            fault.hits++;

            return fault;
        }

        return null;
    }
}


/* Whether the request still has its effect. */
function acts(fault) {
    if (fault.act !== undefined) {
        return fault.act;
    }

    return !fault.hang && fault.status === undefined;
}


function statusReply(fault, method, path) {
    if (fault.status === 429) {
        return reply.json(429, { error: { code: 'too_many_request', method,
                                          path } });
    }

    return reply.error(fault.status, 'server_error', 'simulated fault');
}


/* What the fault makes of a good answer. */
function spoil(fault, good, method, path) {
    let bad = good ? { ...good, headers: [...good.headers] }
                   : reply.empty(200);

    if (fault.status !== undefined) {
        const own = statusReply(fault, method, path);

        bad = { ...own, headers: bad.headers.concat(own.headers) };
    }

    if (fault.retry_after !== undefined) {
        bad.headers.push('Retry-After', String(fault.retry_after));
    }

    for (const [name, value] of Object.entries(fault.headers || {})) {
        bad.headers.push(name, String(value));
    }

    if (fault.body !== undefined) {
        bad.body = typeof fault.body === 'string' ? fault.body
                                                  : JSON.stringify(fault.body);
    }

    if (fault.bad_json) {
        bad.body = bad.body.slice(0, Math.max(1, bad.body.length >> 1));
    }

    if (fault.huge) {
        const pad = `,"padding":"${'x'.repeat(fault.huge)}"}`;

        bad.body = bad.body.endsWith('}') ? bad.body.slice(0, -1) + pad
                                          : bad.body + pad;
    }

    if (fault.content_type !== undefined) {
        bad.type = fault.content_type;
    }

    return bad;
}


/* Sends what is left of an answer; the connection does not outlive it. */
function cut(fault, res, bad, set) {
    const socket = res.socket;

    if (!socket) {
        return;
    }

    const bytes = reply.raw(bad, set).subarray(0, fault.cut_after || 0);

    const close = () => {
        if (fault.reset && socket.resetAndDestroy) {
            socket.resetAndDestroy();
        } else {
            socket.end();
            socket.destroySoon();
        }
    };

    if (bytes.length > 0) {
        socket.write(bytes, close);
    } else {
        close();
    }
}


module.exports = { Faults, acts, spoil, cut };
