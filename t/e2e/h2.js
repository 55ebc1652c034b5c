/*
 * HTTP/2: an nginx that speaks it, and its clients; frame by frame where no
 * client would send what is to be sent.
 *
 *     const nginx = await speaking(t, settings());
 *     const client = connect(t, nginx.urls[0]);
 *     const one = stream(client, 'GET', '/plain');
 *     const { status, text, json } = await one.done;
 *
 * Tests that need it are skipped by NEEDS where nginx has none.
 */

'use strict';

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const tls = require('node:tls');

const path = require('node:path');

const { running } = require('./edge');
const { freePort } = require('./nginx');

const HTTP2 = execFileSync('/bin/sh', ['-c', '"$0" -V 2>&1',
    process.env.NANGO_NGINX || '/usr/sbin/nginx'], { encoding: 'utf8' })
    .includes('--with-http_v2_module');

const NEEDS = { skip: HTTP2 ? false : 'this nginx has no HTTP/2' };

/* Of frames. */
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const END_STREAM = 0x1;
const END_HEADERS = 0x4;

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');


/* An nginx that speaks HTTP/2, and where: plain, and in TLS. */
async function speaking(t, options) {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nango-e2e-'));
    const [plain, secure] = [await freePort(), await freePort()];

    t.after(() => fs.rmSync(dir, { recursive: true, force: true }));

    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes',
        '-keyout', `${dir}/key`, '-out', `${dir}/cert`, '-days', '1', '-subj',
        '/CN=localhost'], { stdio: 'ignore' });

    options.server += `
        listen 127.0.0.1:${plain} http2;
        listen 127.0.0.1:${secure} ssl http2;
        ssl_certificate     ${dir}/cert;
        ssl_certificate_key ${dir}/key;
        http2_recv_timeout  5s;`;

    const nginx = await running(t, options);

    nginx.urls = [`http://127.0.0.1:${plain}`, `https://127.0.0.1:${secure}`];

    return nginx;
}


/* client.cut() ends its connection by RST. */
function connect(t, url, options) {
    const { protocol, port } = new URL(url);
    const socket = net.connect(port, '127.0.0.1');
    const client = http2.connect(url, {
        createConnection: () => (protocol === 'http:' ? socket : tls.connect({
            socket, ALPNProtocols: ['h2'], rejectUnauthorized: false })),
        ...options,
    });

    socket.on('error', () => {});
    client.on('error', () => {});
    client.cut = () => socket.resetAndDestroy();
    t.after(() => client.destroy());

    return client;
}


/*
 * A stream; done resolves to the answer, or to how it ended, and so() tells
 * what has come so far.
 */
function stream(client, method, url, headers) {
    const one = client.request({ ':method': method, ':path': url, ...headers },
                               { endStream: method === 'GET' });
    const parts = [];
    let fields;

    one.so = () => Buffer.concat(parts).toString();
    one.done = new Promise((resolve) => {
        one.on('response', (seen) => { fields = seen; });
        one.on('data', (part) => parts.push(part));
        one.on('error', () => {});
        one.on('close', () => {
            const text = one.so();
            let json;

            try {
                json = JSON.parse(text);
            } catch (err) {
                json = undefined;
            }

            resolve({ status: fields && fields[':status'], text, json,
                      code: one.rstCode });
        });
    });

    return one;
}


function number(value) {
    const bytes = Buffer.alloc(4);

    bytes.writeUInt32BE(value);

    return bytes;
}


function frame(type, flags, id, payload) {
    const head = Buffer.alloc(9);

    head.writeUIntBE(payload.length, 0, 3);
    head.writeUInt8(type, 3);
    head.writeUInt8(flags, 4);
    head.writeUInt32BE(id, 5);

    return Buffer.concat([head, payload]);
}


/* The bytes that a client begins with, who takes whatever comes. */
function hello() {
    return Buffer.concat([PREFACE, frame(SETTINGS, 0, 0, Buffer.alloc(0)),
                          frame(WINDOW_UPDATE, 0, 0, number(1 << 30))]);
}


/* The block of a request's headers, literally; none is of 127 bytes. */
function block(method, url, headers) {
    return Buffer.concat(Object.entries({
        ':method': method, ':path': url, ':scheme': 'http',
        ':authority': 'localhost', ...headers,
    }).map(([name, value]) => Buffer.concat([
        Buffer.from([0, name.length]), Buffer.from(name),
        Buffer.from([value.length]), Buffer.from(value)])));
}


/* A whole request without a body. */
function asked(id, method, url, headers) {
    return frame(HEADERS, END_STREAM | END_HEADERS, id,
                 block(method, url, headers));
}


/* The first half of its headers; nothing but the rest may follow. */
function half(id, method, url, headers) {
    const bytes = block(method, url, headers);

    return frame(HEADERS, END_STREAM, id,
                 bytes.subarray(0, bytes.length / 2));
}


function reset(id) {
    return frame(RST_STREAM, 0, id,
                 number(http2.constants.NGHTTP2_CANCEL));
}


function goaway() {
    return frame(GOAWAY, 0, 0, Buffer.concat([number(0), number(0)]));
}


module.exports = { NEEDS, asked, connect, goaway, half, hello, reset, speaking,
                   stream };
