/*
 * A stand-in for Nango's Connect UI: the page that the frontend SDK puts into
 * a frame, on an origin of its own as with Nango.  This serves its files; what
 * it says to the page around it, and asks of the API, is in
 * connect_ui/connect.js.
 */

'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const FILES = {
    '/': ['index.html', 'text/html; charset=utf-8'],
    '/connect.css': ['connect.css', 'text/css; charset=utf-8'],
    '/connect.js': ['connect.js', 'text/javascript; charset=utf-8'],
};

/* Any page may frame it, and the API is whatever the page says it is. */
const POLICY = "default-src 'self'; connect-src *; base-uri 'none'; "
               + "form-action 'none'";


class ConnectUi {
    constructor(port) {
        this.wanted = port;
        this.server = http.createServer((req, res) => this.answer(req, res));
    }

    listen() {
        return new Promise((resolve, reject) => {
            this.server.once('error', reject);
            this.server.listen(this.wanted, '127.0.0.1', () => {
                this.port = this.server.address().port;
                this.url = `http://127.0.0.1:${this.port}`;
                resolve();
            });
        });
    }

    close() {
        return new Promise((resolve) => {
            this.server.close(resolve);
            this.server.closeAllConnections();
        });
    }

    answer(req, res) {
        const name = req.url.split('?', 1)[0];
        const file = Object.hasOwn(FILES, name) ? FILES[name] : null;

        if (!file || (req.method !== 'GET' && req.method !== 'HEAD')) {
            res.writeHead(404, { 'Content-Type': 'text/plain' });
            res.end('not found\n');
            return;
        }

        res.writeHead(200, {
            'Content-Type': file[1],
            'Cache-Control': 'no-store',
            'Content-Security-Policy': POLICY,
            'X-Content-Type-Options': 'nosniff',
        });
        res.end(fs.readFileSync(path.join(__dirname, 'connect_ui', file[0])));
    }
}


module.exports = { ConnectUi };
