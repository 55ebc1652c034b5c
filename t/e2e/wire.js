/*
 * A client that writes any bytes at all, and reads the answers that come back,
 * one after the other:
 *
 *     const wire = new Wire(port);
 *     wire.write('GET / HTTP/1.1\r\n\r\n');
 *     const { status, headers, text, json } = await wire.answer();
 *
 * What comes without being an answer is an error: who takes a body for a
 * request answers once too often.
 */

'use strict';

const net = require('node:net');

const TIMEOUT = 20000;


class Wire {
    constructor(port) {
        this.parts = [];
        this.length = 0;
        this.need = 0;
        this.answers = [];
        this.waiting = [];

        const socket = net.connect({ port, host: '127.0.0.1',
                                     allowHalfOpen: true });

        socket.setNoDelay(true);
        socket.on('data', (data) => this.receive(data));
        socket.on('error', (err) => this.over(err.code));
        socket.on('end', () => this.over('end'));
        socket.on('close', () => this.over('close'));

        this.socket = socket;
        this.opened = new Promise((resolve) => {
            socket.once('connect', resolve);
            socket.once('close', resolve);
        });
        this.closed = new Promise((resolve) => { this.ended = resolve; });
    }

    /* Resolves when the kernel has them. */
    write(bytes) {
        return new Promise((resolve) => {
            this.socket.write(bytes, resolve);
        });
    }

    receive(data) {
        this.parts.push(data);
        this.length += data.length;

        if (this.length >= this.need) {
            this.data = Buffer.concat(this.parts);
            this.need = 0;
            this.parse();
            this.parts = [this.data];
            this.length = this.data.length;
        }
    }

    parse() {
        for (;;) {
            const end = this.data.indexOf('\r\n\r\n');

            if (end < 0) {
                return;
            }

            const head = this.data.subarray(0, end).toString('latin1');
            const lines = head.split('\r\n');
            const status = Number(lines[0].split(' ')[1]);

            if (!/^HTTP\/1\.[01] \d{3} /.test(lines[0])) {
                this.over(`no answer: ${lines[0]}`);
                return;
            }

            if (status === 100) {
                this.continued = true;
                this.data = this.data.subarray(end + 4);
                continue;
            }

            const headers = Object.fromEntries(lines.slice(1).map((line) => [
                line.slice(0, line.indexOf(':')).toLowerCase(),
                line.slice(line.indexOf(':') + 1).trim()]));
            const length = this.head ? 0 : headers['content-length'] || 0;
            const total = end + 4 + Number(length);

            if (this.data.length < total) {
                this.need = total;
                return;
            }

            const text = this.data.subarray(end + 4, total).toString('utf8');
            let json;

            try {
                json = JSON.parse(text);
            } catch (err) {
                json = undefined;
            }

            this.data = this.data.subarray(total);
            this.answers.push({ status, headers, text, json });
            this.wake();
        }
    }

    wake() {
        while (this.waiting.length && (this.answers.length || this.why)) {
            const { resolve, reject, timer } = this.waiting.shift();

            clearTimeout(timer);

            if (this.answers.length) {
                resolve(this.answers.shift());

            } else {
                reject(new Error(`the connection is over: ${this.why}`));
            }
        }
    }

    over(why) {
        this.why = this.why || why;
        this.ended(this.why);
        this.wake();
    }

    answer(ms) {
        return new Promise((resolve, reject) => {
            const timer = setTimeout(() => {
                this.waiting = this.waiting.filter((w) => w.timer !== timer);
                reject(new Error('no answer'));
            }, ms || TIMEOUT);

            this.waiting.push({ resolve, reject, timer });
            this.wake();
        });
    }

    /* FIN; answers can still be read. */
    end() {
        this.socket.end();
    }

    /* Gone: by RST, or by FIN. */
    close(abruptly) {
        if (abruptly) {
            this.socket.resetAndDestroy();

        } else {
            this.socket.destroy();
        }
    }
}


/* A request's bytes; headers without a length, which body has. */
function post(url, headers, body) {
    const bytes = Buffer.from(body || '');

    return Buffer.concat([
        head('POST', url, { ...headers, 'Content-Length': bytes.length }),
        bytes]);
}


function get(url, headers) {
    return head('GET', url, headers || {});
}


function head(method, url, headers) {
    const lines = Object.entries({ Host: 'localhost', ...headers })
        .map(([name, value]) => `${name}: ${value}\r\n`).join('');

    return Buffer.from(`${method} ${url} HTTP/1.1\r\n${lines}\r\n`);
}


/* Pieces of body as chunks, each of up to size bytes, and the last one. */
function chunks(body, size) {
    const bytes = Buffer.from(body);
    const parts = [];

    for (let i = 0; i < bytes.length; i += size) {
        const part = bytes.subarray(i, i + size);

        parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part,
                   Buffer.from('\r\n'));
    }

    parts.push(Buffer.from('0\r\n\r\n'));

    return Buffer.concat(parts);
}


function chunked(url, headers, body, size) {
    return Buffer.concat([
        head('POST', url, { ...headers, 'Transfer-Encoding': 'chunked' }),
        chunks(body, size)]);
}


/* One request on a connection of its own. */
async function once(port, bytes) {
    const wire = new Wire(port);

    try {
        wire.write(bytes);
        return await wire.answer();
    } finally {
        wire.close();
    }
}


module.exports = { Wire, post, get, head, chunks, chunked, once };
