/*
 * What clients sent, as it was seen: the newest requests, in a ring of
 * bounded length and with bounded bodies.  Bodies are text; one that is not
 * UTF-8 is kept as base64 beside it.
 */

'use strict';

const MAX_REQUESTS = 10000;
const MAX_BODY = 64 * 1024;


class Recorder {
    constructor() {
        this.clear();
    }

    clear() {
        this.entries = [];
        this.first = 0;
        this.lastId = this.lastId || 0;
    }

    add(req, body, at) {
        const kept = body.subarray(0, MAX_BODY);
        const text = kept.toString('utf8');
        const entry = {
            id: ++this.lastId,
            at,
            connection: req.socket.simConnection,
            method: req.method,
            path: req.url,
            http_version: req.httpVersion,
            headers: req.rawHeaders,
            body: text,
            body_length: body.length,
            status: null,
        };

        if (!Buffer.from(text).equals(kept)) {
            entry.body_base64 = kept.toString('base64');
        }

        this.entries.push(entry);

        /* Dropped in bulk, so that a full ring costs no copy per request. */
        if (this.entries.length >= 2 * MAX_REQUESTS) {
            this.entries = this.entries.slice(-MAX_REQUESTS);
        }

        return entry;
    }

    list({ since, method, path }) {
        const newest = this.entries.slice(-MAX_REQUESTS);

        return newest.filter((entry) =>
            entry.id > (since || 0)
            && (!method || entry.method === method)
            && (!path || entry.path.startsWith(path)));
    }
}


module.exports = { Recorder };
