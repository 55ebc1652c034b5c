/*
 * Deliveries: when they are tried again, when never, where they go and what
 * they carry.  The delivery clock runs a hundred times faster here: 30 ms
 * stand for three seconds.
 */

'use strict';

const assert = require('node:assert');

const h = require('./helper');
const { sign } = require('./delivery');
const { stable } = require('./bodies');

const { test } = h;

const SPEED = 100;

/* Timers may be a little early; a busy machine is late without limit. */
const EARLY = 2;


async function setUp(t, answer, settings) {
    const rx = await h.receiver(t, answer);
    const nango = await h.start(t, {
        retrySpeed: SPEED,
        settings: { webhook_url: rx.url, webhook_lag_ms: 0, ...settings },
    });

    /* What the deliveries ask of their clock: exact, however busy the
     * machine. */
    const asked = [];
    const { clock } = nango.deliveries;
    const after = clock.after.bind(clock);

    clock.after = (ms, fn) => {
        asked.push(ms);
        return after(ms, fn);
    };

    return { rx, nango, asked };
}


function connected(nango, values) {
    return h.connected(nango, { tags: { end_user_id: '1' } }, 'github',
                       values);
}


const starts = (rx) => rx.requests.map((r) => r.text.split(' HTTP')[0]);


for (const [name, answer] of [
    ['500', () => h.status(500)],
    ['503', () => h.status(503, 'Retry-After: 60\r\n')],
    ['a connection that closes', () => 'close'],
    ['an answer that breaks off',
     (request) => {
         request.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{');
         return 'hang';
     }],
])
{
    test(`three attempts after ${name}`, async (t) => {
        const { rx, nango, asked } = await setUp(t, answer);
        const { delivery } = await connected(nango);
        const [a, b, c] = rx.requests;

        assert.strictEqual(rx.requests.length, 3);
        assert.strictEqual(delivery.outcome, 'failed');
        assert.strictEqual(b.text, a.text, 'byte for byte');
        assert.strictEqual(c.text, a.text);
        assert.deepStrictEqual(asked, [20000, 3000, 20000, 6000, 20000]);
        assert.ok(b.at - a.at >= 30 - EARLY, `${b.at - a.at} ms`);
        assert.ok(c.at - b.at >= 60 - EARLY, `${c.at - b.at} ms`);
    });
}


test('a receiver that hangs: 0, 23 and 49 seconds', async (t) => {
    const { rx, nango, asked } = await setUp(t, () => 'hang');
    const { delivery } = await connected(nango);
    const [a, b, c] = rx.requests.map((r) => r.at);

    assert.strictEqual(rx.requests.length, 3);
    assert.strictEqual(delivery.targets[0].attempts[0].error,
                       'ECONNABORTED');
    assert.deepStrictEqual(asked, [20000, 3000, 20000, 6000, 20000]);
    assert.ok(b - a >= 230 - 2 * EARLY, `${b - a} ms`);
    assert.ok(c - a >= 490 - 4 * EARLY, `${c - a} ms`);
});


test('nobody listens', async (t) => {
    const { nango } = await setUp(t, null,
                                  { webhook_url: 'http://127.0.0.1:1/' });
    const { delivery } = await connected(nango);
    const { attempts } = delivery.targets[0];

    assert.deepStrictEqual(attempts.map((a) => a.error),
                           ['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED']);
});


test('a URL that is none does no harm', async (t) => {
    const { nango } = await setUp(t, null, { webhook_url: 'nonsense' });
    const { delivery } = await connected(nango);

    assert.strictEqual(delivery.outcome, 'failed');
    assert.strictEqual(delivery.targets[0].attempts.length, 1);
});


test('the second attempt succeeds', async (t) => {
    const { rx, nango } = await setUp(t, (request, n) =>
        (n === 1 ? h.status(502) : h.OK));
    const { delivery } = await connected(nango);

    assert.strictEqual(delivery.outcome, 'delivered');
    assert.strictEqual(rx.requests.length, 2);
    assert.deepStrictEqual(delivery.targets[0].attempts.map((a) => a.status),
                           [502, 200]);
    assert.strictEqual(delivery.targets[0].attempts[1].answer, '{}');
});


test('a lost connection is opened again', async (t) => {
    const { rx, nango } = await setUp(t, (request, n) =>
        (n === 1 ? 'close' : h.OK));
    const { delivery } = await connected(nango);

    assert.strictEqual(delivery.outcome, 'delivered');
    assert.strictEqual(rx.requests.length, 2);
});


for (const code of [304, 302, 400, 401, 404, 413, 429]) {
    test(`never again after ${code}`, async (t) => {
        const { rx, nango } = await setUp(t, () =>
            h.status(code, 'Retry-After: 1\r\n'));
        const { delivery } = await connected(nango);

        assert.strictEqual(delivery.outcome, 'failed');
        assert.strictEqual(rx.requests.length, 1);
    });
}


for (const code of [301, 302, 303]) {
    test(`a ${code} loses the event and counts as success`, async (t) => {
        const { rx, nango } = await setUp(t, (request, n) =>
            (n === 1 ? h.status(code, 'Location: /elsewhere?x=1\r\n')
                     : h.OK));
        const { delivery } = await connected(nango);

        assert.strictEqual(delivery.outcome, 'delivered');
        assert.deepStrictEqual(starts(rx), ['POST /nango/webhook',
                                            'GET /elsewhere?x=1']);
        assert.strictEqual(rx.requests[1].body, '');
        assert.doesNotMatch(rx.requests[1].text, /content-(type|length)/i);
        assert.match(rx.requests[1].text, /X-Nango-Hmac-Sha256/);
    });
}


for (const code of [307, 308]) {
    test(`a ${code} repeats the POST`, async (t) => {
        const { rx, nango } = await setUp(t, (request, n) =>
            (n === 1 ? h.status(code, 'Location: /elsewhere\r\n') : h.OK));
        const { delivery } = await connected(nango);

        assert.strictEqual(delivery.outcome, 'delivered');
        assert.strictEqual(starts(rx)[1], 'POST /elsewhere');
        assert.strictEqual(rx.requests[1].body, rx.requests[0].body);
    });
}


test('redirects without end', async (t) => {
    const { rx, nango } = await setUp(t, () =>
        h.status(302, 'Location: /again\r\n'));
    const { delivery } = await connected(nango);

    assert.strictEqual(delivery.outcome, 'failed');
    assert.strictEqual(rx.requests.length, 6);
});


test('five failures open the circuit for a minute', async (t) => {
    let code = 404;
    const { rx, nango } = await setUp(t, () => h.status(code));
    const failures = [];

    for (let i = 0; i < 7; i++) {
        failures.push((await connected(nango)).delivery.outcome);
    }

    assert.deepStrictEqual(failures, ['failed', 'failed', 'failed', 'failed',
                                      'failed', 'circuit_open',
                                      'circuit_open']);
    assert.strictEqual(rx.requests.length, 5);

    /* One trial that fails opens it again, one that succeeds closes it. */
    nango.deliveries.clock.advance(60000);
    assert.strictEqual((await connected(nango)).delivery.outcome, 'failed');
    assert.strictEqual((await connected(nango)).delivery.outcome,
                       'circuit_open');

    code = 200;
    nango.deliveries.clock.advance(60000);
    assert.strictEqual((await connected(nango)).delivery.outcome,
                       'delivered');
    assert.strictEqual((await connected(nango)).delivery.outcome,
                       'delivered');
});


test('failures far apart do not open it', async (t) => {
    const { rx, nango } = await setUp(t, () => h.status(404));

    for (let i = 0; i < 6; i++) {
        await connected(nango);
        nango.deliveries.clock.advance(5000);
    }

    assert.strictEqual(rx.requests.length, 6);
});


test('retries count for the circuit', async (t) => {
    const { rx, nango } = await setUp(t, () => h.status(500), {
        breaker_window_ms: 100000,
    });

    await connected(nango);

    const { delivery } = await connected(nango);

    assert.strictEqual(delivery.outcome, 'circuit_open');
    assert.strictEqual(rx.requests.length, 5);
});


test('the second URL comes after the retries of the first', async (t) => {
    const second = await h.receiver(t);
    const { rx, nango } = await setUp(t, () => h.status(500), {
        webhook_url_secondary: second.url,
    });
    const { delivery } = await connected(nango);

    assert.strictEqual(rx.requests.length, 3);
    assert.strictEqual(second.requests.length, 1);
    assert.ok(second.requests[0].at >= rx.requests[2].at);
    assert.deepStrictEqual(delivery.targets.map((one) => one.outcome),
                           ['failed', 'delivered']);
});


test("a session's own URL replaces both", async (t) => {
    const own = await h.receiver(t);
    const second = await h.receiver(t);
    const { rx, nango } = await setUp(t, null, {
        webhook_url_secondary: second.url,
    });
    const made = await h.connected(nango, {
        tags: {}, webhook_url_override: own.url,
    }, 'github');

    await nango.control('POST', 'refresh-fail', {
        integration: 'github', connection_id: made.connection_id, wait: true,
    });

    assert.strictEqual(own.requests.length, 2);
    assert.strictEqual(rx.requests.length + second.requests.length, 0);

    await connected(nango);
    assert.strictEqual(rx.requests.length, 1);
    assert.strictEqual(second.requests.length, 1);
});


test('the older place of that URL', async (t) => {
    const own = await h.receiver(t);
    const { rx, nango } = await setUp(t);

    await h.connected(nango, { tags: {}, integrations_config_defaults: {
        github: { connection_config: { webhook_url: own.url, a: 'b' } },
    } }, 'github');

    assert.strictEqual(own.requests.length, 1);
    assert.strictEqual(rx.requests.length, 0);
    assert.deepStrictEqual(
        [...nango.state.connections.values()][0].connection_config,
        { a: 'b' });
});


test('a delivery keeps its key through a rotation', async (t) => {
    const { rx, nango } = await setUp(t, (request, n) =>
        (n < 3 ? h.status(500) : h.OK));
    const old = nango.state.signingKey;
    const token = await h.session(nango, { tags: {} });

    await nango.control('POST', 'connect', { token, integration: 'github' });
    nango.state.rotateSigningKey();
    await nango.control('GET', 'webhooks?wait=1');

    const hmac = (request) =>
        /X-Nango-Hmac-Sha256: (\w+)/.exec(request.text)[1];

    assert.strictEqual(rx.requests.length, 3);

    for (const request of rx.requests) {
        assert.strictEqual(hmac(request), sign(old, request.body).hmac);
    }

    await connected(nango);
    assert.strictEqual(hmac(rx.requests[3]),
                       sign(nango.state.signingKey,
                            rx.requests[3].body).hmac);

    await nango.control('POST', 'settings', { sign_with_previous: true });
    await connected(nango);
    assert.strictEqual(hmac(rx.requests[4]),
                       sign(old, rx.requests[4].body).hmac);
});


test('connections are kept alive', async (t) => {
    const { rx, nango } = await setUp(t);

    for (let i = 0; i < 3; i++) {
        await connected(nango);
    }

    assert.strictEqual(new Set(rx.requests.map((r) => r.socket)).size, 1);
});


test('the browser hears first', async (t) => {
    const { rx, nango } = await setUp(t, null, { webhook_lag_ms: 40 });
    const token = await h.session(nango, { tags: {} });

    await h.call(nango, 'POST', '/_sim/connect',
                 { token, integration: 'github' });

    const answered = Date.now();

    assert.strictEqual(rx.requests.length, 0);
    await nango.control('GET', 'webhooks?wait=1');
    assert.strictEqual(rx.requests.length, 1);
    assert.ok(rx.requests[0].at >= answered + 20);
});


test('what each event says', async (t) => {
    const { rx, nango } = await setUp(t);
    const made = await h.connected(nango, {
        end_user: { id: 'u', email: 'a@b.co' },
    }, 'github');
    const one = { integration: 'github', connection_id: made.connection_id };
    const last = async () => {
        await nango.control('GET', 'webhooks?wait=1');

        return JSON.parse(rx.requests[rx.requests.length - 1].body);
    };
    const tags = { end_user_id: 'u', end_user_email: 'a@b.co' };

    const created = await last();

    assert.deepStrictEqual(created.endUser, {
        endUserId: 'u', endUserEmail: 'a@b.co', tags: {},
    });

    await nango.control('POST', 'refresh-fail', one);

    const failed = await last();

    assert.strictEqual(failed.operation, 'refresh');
    assert.strictEqual(failed.success, false);
    assert.deepStrictEqual(failed.tags, tags);

    await nango.control('POST', 'refresh-fail',
                        { ...one, operation: 'override' });
    assert.strictEqual((await last()).operation, 'override');

    await nango.control('POST', 'refresh-ok', one);

    const mended = await last();

    assert.strictEqual(mended.operation, 'refresh');
    assert.strictEqual(mended.success, true);

    /* A refused reconnect names the connection, and harms it in no way. */
    const again = await h.call(nango, 'POST', '/connect/sessions/reconnect', {
        connection_id: made.connection_id, integration_id: 'github',
    });

    await nango.control('POST', 'deny', { token: again.json.data.token });

    const denied = await last();

    assert.strictEqual(denied.operation, 'creation');
    assert.strictEqual(denied.success, false);
    assert.strictEqual(denied.connectionId, made.connection_id);
    assert.strictEqual(denied.tags, undefined);
    assert.deepStrictEqual({ ...nango.state.connection('github',
        made.connection_id).tags }, tags);

    await nango.control('POST', 'sync', { ...one, added: 5, at: 'T' });

    const synced = await last();

    assert.deepStrictEqual(synced, {
        connectionId: made.connection_id, from: 'nango', model: 'Contact',
        modifiedAfter: 'T', providerConfigKey: 'github', queryTimeStamp: 'T',
        responseResults: { added: 5, deleted: 0, updated: 0 }, success: true,
        syncName: 'contacts', syncType: 'INCREMENTAL', syncVariant: 'base',
        type: 'sync',
    });

    await nango.control('POST', 'sync', { ...one, error: { type: 'x' } });
    assert.strictEqual((await last()).success, false);

    await nango.control('POST', 'async-action', { ...one, payload: [1] });
    assert.deepStrictEqual(await last(), {
        connectionId: made.connection_id, from: 'nango', payload: [1],
        providerConfigKey: 'github', type: 'async_action',
    });

    const sent = rx.requests.length;

    await nango.control('POST', 'delete', { ...one, webhook: true });

    const deleted = await last();

    assert.strictEqual(rx.requests.length, sent + 1);
    assert.strictEqual(deleted.operation, 'deletion');
    assert.deepStrictEqual(deleted.tags, tags);
});


test('forwards, with and without a wrapper', async (t) => {
    const { rx, nango } = await setUp(t);
    const made = await connected(nango);
    const forward = async (body) => {
        await nango.control('POST', 'forward', {
            integration: 'github',
            headers: { 'X-Provider': 'p', Cookie: 'no', 'Sec-X': 'no' },
            ...body,
        });
        await nango.control('GET', 'webhooks?wait=1');

        return rx.requests[rx.requests.length - 1];
    };

    const wrapped = await forward({
        connection_ids: [made.connection_id],
        payload: { b: 1, a: { d: 1, c: '\u00fc' } },
    });

    assert.strictEqual(wrapped.body,
        `{"connectionId":"${made.connection_id}","from":"github","payload":`
        + '{"a":{"c":"\u00fc","d":1},"b":1},"providerConfigKey":"github",'
        + '"type":"forward"}');
    assert.match(wrapped.text, /\r\nX-Provider: p\r\n/);
    assert.doesNotMatch(wrapped.text, /cookie|sec-x/i);

    assert.strictEqual((await forward({ payload: null })).body, 'null');
    assert.strictEqual((await forward({ payload: [2, 1] })).body, '[2,1]');
});


test('any bytes, any signature', async (t) => {
    const { rx, nango } = await setUp(t);
    const send = (body) => nango.control('POST', 'send',
                                         { ...body, wait: true });

    await send({ raw: 'no JSON', hmac: 'bad' });
    await send({ raw: '', hmac: null });
    await send({ raw: '{}', key: 'other' });

    assert.strictEqual(rx.requests[0].body, 'no JSON');
    assert.match(rx.requests[0].text, /X-Nango-Hmac-Sha256: bad\r\n/);
    assert.doesNotMatch(rx.requests[1].text, /X-Nango-Hmac-Sha256/);
    assert.match(rx.requests[2].text, new RegExp(sign('other', '{}').hmac));
});


test('what the settings silence', async (t) => {
    const { rx, nango } = await setUp(t, null, { on_auth_creation: false });
    const made = await connected(nango);

    assert.strictEqual(made.webhook, null);

    const again = await h.call(nango, 'POST', '/connect/sessions/reconnect', {
        connection_id: made.connection_id, integration_id: 'github',
    });
    const token = again.json.data.token;

    assert.strictEqual((await nango.control('POST', 'deny', { token }))
        .webhook, null);
    await nango.control('POST', 'connect', { token, wait: true });
    assert.strictEqual(rx.requests.length, 1);
    assert.strictEqual(JSON.parse(rx.requests[0].body).operation, 'override');

    const remove = () => h.call(nango, 'DELETE',
        `/connections/${made.connection_id}?provider_config_key=github`);

    await remove();
    await nango.control('GET', 'webhooks?wait=1');
    assert.strictEqual(rx.requests.length, 1, 'deletions are silent');
});


test('deletions that are told', async (t) => {
    const { rx, nango } = await setUp(t, null, { on_deletion: true });
    const made = await connected(nango);

    await h.call(nango, 'DELETE',
        `/connections/${made.connection_id}?provider_config_key=github`);
    await nango.control('GET', 'webhooks?wait=1');
    assert.strictEqual(JSON.parse(rx.requests[1].body).operation, 'deletion');
});


test('each failing refresh says so again, if told', async (t) => {
    const { rx, nango } = await setUp(t);
    const made = await connected(nango);

    await nango.control('POST', 'refresh-fail', {
        integration: 'github', connection_id: made.connection_id,
        repeat: true, wait: true,
    });
    await h.call(nango, 'GET',
        `/connections/${made.connection_id}?provider_config_key=github`);
    await nango.control('GET', 'webhooks?wait=1');

    assert.strictEqual(rx.requests.length, 3);
    assert.strictEqual(rx.requests[2].text, rx.requests[1].text);
});


test('keys in order at every depth, nothing undefined', () => {
    assert.strictEqual(
        stable({ b: [{ z: 1, a: undefined }], 'B': '\u00e9"', a: null }),
        '{"B":"\u00e9\\"","a":null,"b":[{"z":1}]}');
});
