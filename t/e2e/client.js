/*
 * A client that keeps its connection alive, sends one request at a time, and
 * says of a request that failed whether any byte of an answer had come: what
 * Nango may repeat, and what no server may do to it.
 */

'use strict';

const crypto = require('node:crypto');
const net = require('node:net');

const TIMEOUT = 20000;


class Cut extends Error {
    constructor(why, received) {
        super(`the connection was cut after ${received} bytes (${why})`);
        this.cut = true;
        this.received = received;
    }
}


class Client {
    constructor(port) {
        this.port = port;
        this.socket = null;
        this.pending = null;
    }

    connect() {
        const socket = net.connect(this.port, '127.0.0.1');
        const gone = (why) => {
            if (this.socket === socket) {
                this.socket = null;
                this.fail(why);
            }
        };

        socket.setNoDelay(true);
        socket.on('data', (data) => this.receive(data));
        socket.on('error', (err) => gone(err.code));
        socket.on('end', () => { socket.destroy(); gone('end'); });
        socket.on('close', () => gone('close'));

        this.socket = socket;
        this.data = Buffer.alloc(0);
    }

    /* {status, headers, text, json}; a Cut where there is no whole answer. */
    request(method, url, headers, body) {
        const bytes = Buffer.isBuffer(body) ? body : Buffer.from(body || '');
        const lines = Object.entries({
            Host: 'localhost',
            ...(method === 'POST' ? { 'Content-Length': bytes.length } : {}),
            ...headers,
        }).map(([name, value]) => `${name}: ${value}\r\n`);

        if (!this.socket) {
            this.connect();
        }

        return new Promise((resolve, reject) => {
            this.pending = { resolve, reject };
            this.timer = setTimeout(() => {
                const pending = this.pending;

                this.pending = null;
                this.close();
                pending.reject(new Error(`no answer to ${method} ${url}`));
            }, TIMEOUT);

            this.socket.write(`${method} ${url} HTTP/1.1\r\n${lines.join('')}`
                              + '\r\n');

            if (bytes.length) {
                this.socket.write(bytes);
            }
        });
    }

    receive(data) {
        this.data = Buffer.concat([this.data, data]);

        const end = this.data.indexOf('\r\n\r\n');

        if (end < 0) {
            return;
        }

        const head = this.data.subarray(0, end).toString('latin1');
        const length = /^content-length: (\d+)$/im.exec(head);
        const total = end + 4 + (length ? Number(length[1]) : 0);

        if (this.data.length < total || !this.pending) {
            return;
        }

        const text = this.data.subarray(end + 4, total).toString('utf8');
        const headers = {};

        for (const line of head.split('\r\n').slice(1)) {
            const colon = line.indexOf(':');

            headers[line.slice(0, colon).toLowerCase()]
                = line.slice(colon + 1).trim();
        }

        const answer = { status: Number(head.split(' ')[1]), headers, text };

        try {
            answer.json = JSON.parse(text);
        } catch (err) {
            answer.json = undefined;
        }

        const { resolve } = this.pending;

        this.data = this.data.subarray(total);
        this.pending = null;
        clearTimeout(this.timer);

        if (/^connection: close$/im.test(head)) {
            this.close();
        }

        resolve(answer);
    }

    fail(why) {
        if (this.pending) {
            const { reject } = this.pending;

            this.pending = null;
            clearTimeout(this.timer);
            reject(new Cut(why, this.data.length));
        }
    }

    /* By RST if abruptly: what was on its way is lost. */
    close(abruptly) {
        const { socket } = this;

        this.socket = null;

        if (socket && abruptly && socket.resetAndDestroy) {
            socket.resetAndDestroy();
        } else if (socket) {
            socket.destroy();
        }

        this.fail('closed here');
    }
}


function hmac(body, key) {
    return crypto.createHmac('sha256', key).update(body).digest('hex');
}


/* One request on a connection of its own. */
async function once(port, method, url, headers, body) {
    const client = new Client(port);

    try {
        return await client.request(method, url, headers, body);
    } finally {
        client.close();
    }
}


/* A client of each of two workers, which location /worker tells apart. */
async function ofWorkers(t, port) {
    const found = new Map();

    while (found.size < 2) {
        const client = new Client(port);

        t.after(() => client.close());
        found.set((await client.request('GET', '/worker')).text, client);
    }

    return [...found.values()];
}


module.exports = { Client, hmac, ofWorkers, once };
