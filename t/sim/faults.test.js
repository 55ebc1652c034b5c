/*
 * Planted faults: each does what it says, to the requests it names and to no
 * others, and leaves or spares the effect of the request as promised.
 */

'use strict';

const assert = require('node:assert');
const net = require('node:net');

const h = require('./helper');

const { test } = h;

const plant = (nango, fault) =>
    nango.control('POST', 'faults', { faults: [fault] });
const list = (nango) => h.call(nango, 'GET', '/connections');
const make = (nango) => h.call(nango, 'POST', '/connect/sessions',
                               { tags: {} });


/* The bytes that come back until the connection closes. */
function bytes(nango, method, path) {
    return new Promise((resolve) => {
        const socket = net.connect(nango.port, '127.0.0.1');
        const chunks = [];
        let reset = false;

        socket.on('data', (chunk) => chunks.push(chunk));
        socket.on('error', (e) => {
            reset = e.code === 'ECONNRESET';
        });
        socket.on('close', () => resolve({
            text: Buffer.concat(chunks).toString('utf8'), reset,
        }));
        socket.write(`${method} ${path} HTTP/1.1\r\nHost: x\r\n`
                     + 'Authorization: Bearer 11111111-1111-4111-8111-'
                     + '111111111111\r\n\r\n');
    });
}


test('a late answer', async (t) => {
    const nango = await h.start(t);

    await plant(nango, { path: '/connections', delay_ms: 60 });

    const began = Date.now();

    assert.strictEqual((await list(nango)).status, 200);
    assert.ok(Date.now() - began >= 58);
});


test('no answer', async (t) => {
    const nango = await h.start(t);

    await plant(nango, { method: 'POST', path: '/connect/sessions',
                         hang: true });

    const waiting = make(nango).then(() => 'answered', () => 'closed');
    const timer = new Promise((resolve) => {
        setTimeout(resolve, 100, 'nothing');
    });

    assert.strictEqual(await Promise.race([waiting, timer]), 'nothing');
    assert.strictEqual(nango.state.sessions.size, 0, 'nor any effect');
    assert.strictEqual((await list(nango)).status, 200, 'others are answered');
    await nango.close();
    assert.strictEqual(await waiting, 'closed');
});


test('429 and how long to wait', async (t) => {
    const nango = await h.start(t);

    await plant(nango, { path: '/connect/*', status: 429, retry_after: 0 });

    const answer = await make(nango);

    assert.strictEqual(answer.status, 429);
    assert.strictEqual(answer.headers['retry-after'], '0');
    assert.strictEqual(answer.json.error.code, 'too_many_request');
    assert.strictEqual(nango.state.sessions.size, 0);
    assert.strictEqual((await list(nango)).status, 200);
});


test('5xx for so many times, after so many', async (t) => {
    const nango = await h.start(t);
    const seen = [];

    await plant(nango, { path: '/connections', status: 503, skip: 1,
                         times: 2, body: 'no JSON', content_type: 'text/html',
                         headers: { 'X-Own': 'y' } });

    for (let i = 0; i < 5; i++) {
        seen.push((await list(nango)).status);
    }

    assert.deepStrictEqual(seen, [200, 503, 503, 200, 200]);

    await plant(nango, { status: 500, body: { error: { code: 'x' } } });

    const answer = await list(nango);

    assert.deepStrictEqual(answer.json, { error: { code: 'x' } });
    assert.strictEqual(answer.headers['x-own'], undefined);
});


test('an error after the fact', async (t) => {
    const nango = await h.start(t);

    await plant(nango, { status: 500, act: true });
    assert.strictEqual((await make(nango)).status, 500);
    assert.strictEqual(nango.state.sessions.size, 1);
});


test('a connection cut after so many bytes', async (t) => {
    const nango = await h.start(t);

    await nango.control('POST', 'connections/bulk',
                        { count: 50, integration: 'github' });

    for (const n of [0, 10, 3000]) {
        await plant(nango, { cut_after: n });

        const { text, reset } = await bytes(nango, 'GET', '/connections');

        assert.strictEqual(text.length, n);
        assert.ok('HTTP/1.1 200 OK'.startsWith(text.slice(0, 15)));
        assert.strictEqual(reset, false);
    }

    await plant(nango, { reset: true });
    assert.ok((await bytes(nango, 'GET', '/connections')).reset);

    /* The answer was lost, not the request. */
    await plant(nango, { cut_after: 10 });
    await assert.rejects(make(nango));
    assert.strictEqual(nango.state.sessions.size, 1);
});


test('answers that mislead', async (t) => {
    const nango = await h.start(t);

    await plant(nango, { bad_json: true });

    const broken = await list(nango);

    assert.strictEqual(broken.status, 200);
    assert.match(broken.headers['content-type'], /json/);
    assert.strictEqual(broken.json, undefined);
    assert.ok('{"connections":[]}'.startsWith(broken.text));

    await plant(nango, { content_type: 'text/html' });

    const html = await list(nango);

    assert.strictEqual(html.headers['content-type'], 'text/html');
    assert.ok(html.json);

    await plant(nango, { huge: 5000000 });

    const huge = await list(nango);

    assert.ok(huge.text.length > 5000000);
    assert.ok(huge.json);
});


test('a misspelt fault is refused', async (t) => {
    const nango = await h.start(t);

    await assert.rejects(plant(nango, { delay: 5 }), /unknown member "delay"/);
});


test('faults are added and cleared', async (t) => {
    const nango = await h.start(t);

    await nango.control('POST', 'faults',
                        { add: { path: '/integrations', status: 500 } });
    await nango.control('POST', 'faults',
                        { add: { path: '/connections', status: 502 } });
    assert.strictEqual((await list(nango)).status, 502);
    assert.deepStrictEqual((await nango.control('GET', 'faults')).faults
        .map((fault) => fault.hits), [0, 1]);
    await nango.control('DELETE', 'faults');
    assert.strictEqual((await list(nango)).status, 200);
});


test('a part of the webhooks is lost, another sent twice', async (t) => {
    const rx = await h.receiver(t);
    const nango = await h.start(t, {
        settings: { webhook_url: rx.url, webhook_lag_ms: 0 },
    });
    const send = async (n) => {
        for (let i = 0; i < n; i++) {
            await nango.control('POST', 'send', { raw: `"${i}"` });
        }

        return (await nango.control('GET', 'webhooks?wait=1')).webhooks;
    };

    await nango.control('POST', 'faults', { webhook_drop: 0.5 });

    const lost = (await send(200)).filter((w) => w.outcome === 'dropped');

    assert.ok(lost.length > 70 && lost.length < 130, `${lost.length}`);
    assert.strictEqual(rx.requests.length, 200 - lost.length);

    await nango.control('POST', 'faults',
                        { webhook_drop: 0, webhook_duplicate: 1 });
    rx.requests.length = 0;
    await send(3);
    assert.strictEqual(rx.requests.length, 6);
});
