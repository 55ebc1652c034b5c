/*
 * A client of event streams, as a browser's EventSource is one: it comes again
 * when its stream ends, with the id that it has seen last, and joins the lines
 * of an event's data.  Besides it can stop reading.
 */

'use strict';

const http = require('node:http');

const RETRY = 50;


class Follower {
    constructor(port, url, headers) {
        this.port = port;
        this.url = url;
        this.headers = headers || {};
        this.events = [];           /* {id, event, data} */
        this.statuses = [];
        this.comments = 0;
        this.bytes = 0;
        this.id = undefined;
        this.retry = undefined;
        this.closed = false;
        this.paused = false;
        this.agent = new http.Agent({ keepAlive: false, maxSockets: 1 });
        this.connect();
    }

    connect() {
        const headers = { Accept: 'text/event-stream', ...this.headers };

        if (this.id !== undefined) {
            headers['Last-Event-ID'] = this.id;
        }

        this.block = {};
        this.rest = '';

        this.request = http.get({ host: '127.0.0.1', port: this.port,
                                  path: this.url, headers,
                                  agent: this.agent }, (res) => {
            this.statuses.push(res.statusCode);
            this.fields = res.headers;
            this.response = res;

            res.setEncoding('utf8');
            res.on('data', (data) => this.read(data));
            res.on('error', () => {});
            res.on('close', () => this.again(res.statusCode));

            if (this.paused) {
                res.pause();
            }
        });

        this.request.on('error', () => this.again());
    }

    again(status) {
        this.response = undefined;

        /* Whoever is refused by a status does not come again. */
        if (this.closed || this.timer
            || (status !== undefined && status !== 200
                && status !== 503))
        {
            return;
        }

        this.timer = setTimeout(() => {
            this.timer = undefined;

            if (!this.closed) {
                this.connect();
            }
        }, RETRY);
    }

    read(data) {
        this.bytes += data.length;

        const lines = (this.rest + data).split('\n');

        this.rest = lines.pop();
        lines.forEach((line) => this.line(line));
    }

    line(line) {
        if (line === '') {
            if (this.block.id !== undefined) {
                this.id = this.block.id;
            }

            if (this.block.data !== undefined) {
                this.events.push({ ...this.block,
                                   data: JSON.parse(this.block.data) });
            }

            this.block = {};
            return;
        }

        const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);

        if (name === '') {
            this.comments++;
        } else if (name === 'data') {
            this.block.data = this.block.data === undefined
                ? value : `${this.block.data}\n${value}`;
        } else if (name === 'retry') {
            this.retry = Number(value);
        } else {
            this.block[name] = value;
        }
    }

    sequences() {
        return this.events.map((event) => event.data.sequence);
    }

    pause() {
        this.paused = true;

        if (this.response) {
            this.response.pause();
        }
    }

    resume() {
        this.paused = false;

        if (this.response) {
            this.response.resume();
        }
    }

    /* The connection breaks; it comes again. */
    cut() {
        this.request.destroy();
    }

    close() {
        this.closed = true;
        clearTimeout(this.timer);
        this.request.destroy();
        this.agent.destroy();
    }
}


module.exports = { Follower };
