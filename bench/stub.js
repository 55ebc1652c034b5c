/*
 * For bench/deliver: a backend as an application has it, which verifies each
 * webhook with Nango's SDK.  GET tells how many it took.
 */

'use strict';

const http = require('node:http');
const path = require('node:path');

const { Nango } = require(path.join(__dirname,
    '../t/e2e/node_modules/@nangohq/node'));

const [, , port, key] = process.argv;

const nango = new Nango({ host: 'http://127.0.0.1:1', apiKey: 'x',
                          webhookSigningKey: key });
let taken = 0;

http.createServer({ keepAliveTimeout: 0 }, (req, res) => {
    const parts = [];

    if (req.method === 'GET') {
        res.end(`${taken}\n`);
        return;
    }

    req.on('data', (part) => parts.push(part));
    req.on('end', () => {
        const body = Buffer.concat(parts).toString();

        if (!nango.verifyIncomingWebhookRequest(body, req.headers)) {
            res.writeHead(401).end();
            return;
        }

        taken++;
        res.writeHead(204).end();
    });
}).listen(Number(port), '127.0.0.1');
