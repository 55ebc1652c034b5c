/*
 * A backend that events are delivered to: keeps what it got, in its order, and
 * answers as it is told.
 *
 *     const backend = await Backend.create(t);
 *     backend.answer = (request) => 500;        a status, or what it resolves
 *     backend.got                               [{ sequence, attempt, ... }]
 *
 * An answer may be { status, headers, delay }, or null: none at all.  down()
 * and up() close its port and open it again.  Options: socket, the path of one;
 * tls, { key, cert }; keep: false keeps no bodies.
 */

'use strict';

const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');

const { freePort, sleep } = require('./nginx');


class Backend {
    static async create(t, options) {
        const backend = new Backend(options || {});

        if (!backend.socket) {
            backend.port = await freePort();
        }

        await backend.up();
        t.after(() => backend.down());

        return backend;
    }

    constructor(options) {
        this.socket = options.socket;
        this.tls = options.tls;
        this.keep = options.keep !== false;
        this.answer = options.answer || (() => 200);
        this.got = [];
        this.accepted = [];
        this.flight = 0;
        this.most = 0;
        this.sockets = new Set();
    }

    get url() {
        const scheme = this.tls ? 'https' : 'http';

        return this.socket
               ? `${scheme}://unix:${this.socket}:/hook?from=nango`
               : `${scheme}://127.0.0.1:${this.port}/hook?from=nango`;
    }

    async up() {
        const { createServer } = this.tls ? https : http;

        this.server = createServer({ keepAliveTimeout: 0, ...this.tls },
                                   (req, res) => this.take(req, res));

        this.server.on('connection', (socket) => {
            this.sockets.add(socket);
            socket.on('error', () => {});
            socket.on('close', () => this.sockets.delete(socket));
        });

        if (this.socket) {
            fs.rmSync(this.socket, { force: true });
        }

        await new Promise((resolve, reject) => {
            this.server.once('error', reject);

            if (this.socket) {
                this.server.listen(this.socket, () => {
                    fs.chmodSync(this.socket, 0o777);
                    resolve();
                });

            } else {
                this.server.listen(this.port, '127.0.0.1', resolve);
            }
        });
    }

    async down() {
        const { server } = this;

        if (!server) {
            return;
        }

        this.server = null;

        const closed = new Promise((resolve) => { server.close(resolve); });

        this.sockets.forEach((socket) => socket.destroy());
        await closed;
    }

    take(req, res) {
        const parts = [];

        this.flight++;
        this.most = Math.max(this.most, this.flight);
        res.once('close', () => { this.flight--; });

        req.on('data', (part) => parts.push(part));
        req.on('end', () => {
            const body = Buffer.concat(parts);
            const one = {
                method: req.method,
                url: req.url,
                headers: req.headers,
                raw: req.rawHeaders,
                sequence: Number(req.headers['x-nango-edge-sequence']),
                attempt: Number(req.headers['x-nango-edge-attempt']),
                body: this.keep ? body : undefined,
                length: body.length,
                at: Date.now(),
            };

            this.got.push(one);
            this.reply(one, res, body);
        });
    }

    async reply(one, res, body) {
        let answer = await this.answer(one, body);

        if (answer === null) {
            return;
        }

        if (typeof answer === 'number') {
            answer = { status: answer };
        }

        if (answer.delay) {
            await sleep(answer.delay);
        }

        if (res.destroyed) {
            return;
        }

        one.status = answer.status;
        one.answered = Date.now();

        if (answer.status >= 200 && answer.status < 300) {
            this.accepted.push(one.sequence);
        }

        res.writeHead(answer.status, answer.headers);
        res.end(answer.body);
    }
}


module.exports = { Backend };
