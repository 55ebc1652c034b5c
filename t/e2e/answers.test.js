/*
 * An answer that is longer than the socket takes at once, to a client that
 * reads slowly: all of it arrives, and the connection goes on.
 */

'use strict';

const assert = require('node:assert');
const net = require('node:net');
const test = require('node:test');

const { hmac, once } = require('./client');
const { create, freePort, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const CONNECTIONS = 300;

const HTTP = `
    nango_store @STORE@;
    nango_environment prod {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        webhook_signing_key data:${KEY};
    }
`;

const LIST = `
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
`;


function creation(n) {
    const tags = { end_user_id: '42' };

    for (let i = 0; i < 9; i++) {
        tags[`tag${i}`] = `${n}-`.padEnd(255, 'x');
    }

    return JSON.stringify({
        connectionId: `c-${n}`, from: 'nango', operation: 'creation',
        provider: 'github', providerConfigKey: 'github', success: true, tags,
        type: 'auth',
    });
}


/* Reads n answers of one connection, a little at a time. */
function slowly(t, port, path, n) {
    const request = `GET ${path} HTTP/1.1\r\nHost: localhost\r\n`
                    + 'X-User: 42\r\n\r\n';

    return new Promise((resolve, reject) => {
        const socket = net.connect(port, '127.0.0.1');
        const bodies = [];
        let data = Buffer.alloc(0);

        t.after(() => socket.destroy());

        socket.once('error', reject);
        socket.once('close', () => {
            reject(new Error(`closed after ${data.length} bytes`));
        });

        socket.on('data', async (chunk) => {
            data = Buffer.concat([data, chunk]);

            const end = data.indexOf('\r\n\r\n') + 4;
            const length = Number((/content-length: (\d+)/i.exec(
                data.toString('latin1', 0, end)) || [])[1]);

            if (end > 4 && data.length >= end + length) {
                bodies.push(data.toString('utf8', end, end + length));
                data = data.subarray(end + length);

                if (bodies.length === n) {
                    resolve(bodies);
                    return;
                }

                socket.write(request);
            }

            socket.pause();
            await sleep(2);
            socket.resume();
        });

        socket.write(request);

        /* The whole answer waits for this before any of it is read. */
        socket.pause();
        setTimeout(() => socket.resume(), 300);
    });
}


test('a list that is longer than the socket takes', { timeout: 30000 },
    async (t) => {
        const port = await freePort();
        const nginx = await create(t, {
            workers: 1,
            http: `${HTTP}
                server {
                    listen 127.0.0.1:${port} sndbuf=4096;
                    ${LIST}
                }`,
            server: 'location = /webhook { nango_webhook prod; }',
        });

        await nginx.start();

        for (let n = 0; n < CONNECTIONS; n++) {
            const body = creation(n);
            const answer = await once(nginx.port, 'POST', '/webhook', {
                'Content-Type': 'application/json',
                'X-Nango-Hmac-Sha256': hmac(body, KEY),
            }, body);

            assert.strictEqual(answer.status, 200);
        }

        const bodies = await slowly(t, port, '/connections?limit=1000', 2);

        for (const body of bodies) {
            assert.ok(body.length > 512 * 1024, `${body.length} bytes only`);
            assert.strictEqual(JSON.parse(body).connections.length,
                CONNECTIONS);
        }

        await until('a calm log', () =>
            nginx.lines('emerg', 'alert', 'crit').length === 0);
    });
