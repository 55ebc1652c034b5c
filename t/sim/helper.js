/*
 * What the simulator's tests share: a client that shows an answer as it came,
 * a receiver of webhooks that keeps the bytes, and the captures.
 */

'use strict';

const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const path = require('node:path');
const nodeTest = require('node:test');

const { createNango, API_KEY } = require('./nango');

const ROOT = path.resolve(__dirname, '../..');
const CAPTURES = process.env.NANGO_CAPTURES
                 || path.join(ROOT, 't/captures');

/* Where the captures were first put, beside the repository; often absent. */
const ORIGINALS = path.resolve(ROOT, '../shared/captures');


/* node's test(), but none may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 15000 }, fn);
}


/* Started, and closed with the test. */
async function start(t, options) {
    const nango = await createNango(options).listen();

    t.after(() => nango.close());

    return nango;
}


/*
 * One request.  extra: key (null for none), headers, agent, text (a body as
 * it is).  The answer: {line, status, headers, raw, text, json}.
 */
function call(nango, method, url, body, extra) {
    const e = extra || {};

    /* Said in so many words: not every Node's default agent would. */
    const headers = { connection: 'keep-alive', ...e.headers };
    const text = e.text !== undefined ? e.text
                 : body !== undefined ? JSON.stringify(body) : undefined;

    if (e.key !== null) {
        headers.authorization = `Bearer ${e.key || API_KEY}`;
    }

    if (text !== undefined) {
        headers['content-type'] = headers['content-type']
                                  || 'application/json';
        headers['content-length'] = Buffer.byteLength(text);
    }

    return new Promise((resolve, reject) => {
        const req = http.request(nango.url + url, {
            method,
            headers,
            agent: e.agent,
        });

        req.on('error', reject);
        req.on('response', (res) => {
            const chunks = [];

            res.on('data', (chunk) => chunks.push(chunk));
            res.on('error', reject);
            res.on('end', () => {
                const answer = {
                    line: `HTTP/${res.httpVersion} ${res.statusCode} `
                          + res.statusMessage,
                    status: res.statusCode,
                    headers: res.headers,
                    raw: res.rawHeaders,
                    text: Buffer.concat(chunks).toString('utf8'),
                };

                try {
                    answer.json = JSON.parse(answer.text);
                } catch (err) {
                    answer.json = undefined;
                }

                resolve(answer);
            });
        });
        req.end(text);
    });
}


async function session(nango, body) {
    const answer = await call(nango, 'POST', '/connect/sessions', body);

    if (answer.status !== 201) {
        throw new Error(answer.text);
    }

    return answer.json.data.token;
}


/* A session and the user going through with it: the connection's id. */
async function connected(nango, body, integration, values) {
    const token = await session(nango, body);

    return nango.control('POST', 'connect',
                         { token, integration, wait: true, ...values });
}


const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}';


function status(code, more) {
    return `HTTP/1.1 ${code} Status\r\n${more || ''}`
           + 'Content-Length: 0\r\n\r\n';
}


/*
 * Takes webhooks and keeps them: {text, at, socket}.  answer(request, n) says
 * what comes back: bytes, "hang", or "close".
 */
async function receiver(t, answer) {
    const requests = [];
    const sockets = new Set();

    const server = net.createServer((socket) => {
        let pending = Buffer.alloc(0);

        sockets.add(socket);
        socket.on('close', () => sockets.delete(socket));
        socket.on('error', () => {});
        socket.on('data', (data) => {
            pending = Buffer.concat([pending, data]);

            for (;;) {
                const end = pending.indexOf('\r\n\r\n');

                if (end < 0) {
                    return;
                }

                const head = pending.subarray(0, end).toString('latin1');
                const length = /^content-length: (\d+)$/im.exec(head);
                const total = end + 4 + (length ? Number(length[1]) : 0);

                if (pending.length < total) {
                    return;
                }

                const request = {
                    text: pending.subarray(0, total).toString('utf8'),
                    body: pending.subarray(end + 4, total).toString('utf8'),
                    at: Date.now(),
                    socket,
                };

                pending = pending.subarray(total);
                requests.push(request);

                const what = answer ? answer(request, requests.length) : OK;

                if (what === 'close') {
                    socket.destroy();
                } else if (what !== 'hang') {
                    socket.write(what);
                }
            }
        });
    });

    await new Promise((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
    });

    t.after(() => {
        server.close();
        sockets.forEach((socket) => socket.destroy());
    });

    const { port } = server.address();

    return { requests, port, url: `http://127.0.0.1:${port}/nango/webhook` };
}


function captureNames() {
    return fs.readdirSync(CAPTURES).filter((name) => !name.startsWith('.'))
        .sort();
}


/* The captures of the API have lines that end in \n, those of webhooks are
 * the bytes themselves. */
function capture(name) {
    const text = fs.readFileSync(path.join(CAPTURES, name), 'utf8');
    const [head, body] = text.split(/\r?\n\r?\n/);
    const [line, ...lines] = head.split(/\r?\n/);

    return { text, line, lines, body };
}


module.exports = {
    CAPTURES, ORIGINALS, OK,
    test, start, call, session, connected, receiver, status, capture,
    captureNames,
};
