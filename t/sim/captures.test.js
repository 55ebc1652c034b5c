/*
 * The simulator beside the real thing: for each capture it is brought to the
 * state the real Nango was in, given the same ids, times and keys, and must
 * then say the same, byte for byte.  The two lines that no two servers share
 * are left out: Date, and the receiver's port in Host.
 */

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');

const h = require('./helper');
const { sign } = require('./delivery');

const { test } = h;

const SIGNING_KEY = '1e178f20-544e-4a7a-8f4a-309165e97254';
const DAY = '2026-11-23T';
const TOKEN = 'nango_connect_session_9a3859e3af0225debd5259629ed0d5d8'
              + 'fe109e5fd0e313a14f9818b66d1ef043';

const ANN = {
    end_user: {
        id: 'user-42',
        email: 'ann@example.com',
        display_name: 'Ann \u00dcn\u00efcode',
        tags: { plan: 'pro' },
    },
    organization: { id: 'org-7', display_name: 'Org Seven' },
};
const BOB = {
    tags: {
        end_user_id: 'user-43',
        end_user_email: 'bob@example.com',
        team: 'Blue',
    },
};

const compared = new Set();


function micros(time) {
    const [, ms, rest] = /^(.*\.\d{3})(\d*)$/.exec(time);

    return Date.parse(`${DAY}${ms}Z`) * 1000 + Number(rest || 0);
}


function at(nango, time) {
    nango.clock.set(Date.parse(`${DAY}${time}Z`), true);
}


/* Connections 1, 2, 4 and 5 as they were when the captures were taken. */
async function populate(nango) {
    const connect = (body, integration, id, connectionId, time, more) => {
        at(nango, time.slice(0, 12));

        return h.connected(nango, body, integration, {
            id,
            connection_id: connectionId,
            created_micros: micros(time),
            ...more,
        });
    };

    await connect({ end_user: { id: 'user-42', email: 'ann@example.com' } },
                  'test-none', 1, 'f4349460-fcf1-43aa-904e-6a7c15052370',
                  '08:27:04.638828');
    await connect(ANN, 'test-apikey', 2,
                  'd76189cb-fd57-4e26-9832-36fcfc1d1e3b', '08:27:08.159',
                  { credentials: { type: 'API_KEY', apiKey: 'old' } });

    at(nango, '08:27:09.917');

    const again = await h.call(nango, 'POST', '/connect/sessions/reconnect', {
        connection_id: 'd76189cb-fd57-4e26-9832-36fcfc1d1e3b',
        integration_id: 'test-apikey',
    });

    await nango.control('POST', 'connect', {
        token: again.json.data.token,
        credentials: { type: 'API_KEY', apiKey: 'patXYZ.9999' },
        wait: true,
    });

    await connect(BOB, 'test-none', 4, '57513627-043f-4dee-80bf-759c7ab7bda9',
                  '08:27:11.534801');
    await connect(ANN, 'test-none', 5, 'b7e9d9cc-797b-483d-add8-081850f8e16f',
                  '08:27:13.136278');
}


/* The account's minute at the moment of the capture. */
function minute(nango, captured) {
    const value = (name) => {
        const line = captured.lines.find((l) => l.startsWith(`${name}: `));

        return line ? Number(line.split(': ')[1]) : null;
    };
    const remaining = value('X-RateLimit-Remaining');

    if (remaining !== null) {
        nango.limits.windows.set('key', {
            used: 200 - remaining - 1,
            ends: value('X-RateLimit-Reset') * 1000,
        });
    }
}


function lines(answer) {
    const result = [];

    for (let i = 0; i < answer.raw.length; i += 2) {
        if (answer.raw[i] !== 'Date') {
            result.push(`${answer.raw[i]}: ${answer.raw[i + 1]}`);
        }
    }

    return result;
}


async function compare(t, nango, name, method, url, body, extra) {
    const captured = h.capture(name);

    minute(nango, captured);

    const answer = await h.call(nango, method, url, body, extra);

    await t.test(name, () => {
        assert.strictEqual(answer.line, captured.line);
        assert.deepStrictEqual(lines(answer), captured.lines);
        assert.strictEqual(answer.text, captured.body);
    });
    compared.add(name);
}


test('answers of the API', async (t) => {
    const nango = await h.start(t, {
        signingKey: SIGNING_KEY,
        settings: { headers: 'short', rate_limit: 200, bad_key_ms: 0 },
    });
    const two = '/connections/d76189cb-fd57-4e26-9832-36fcfc1d1e3b';

    at(nango, '08:27:04.081');
    nango.state.next.tokens.push(TOKEN);
    await compare(t, nango, 'api-sessions-success.txt', 'POST',
                  '/connect/sessions', { tags: {} });
    await compare(t, nango, 'api-sessions-invalid-integration.txt', 'POST',
                  '/connect/sessions',
                  { tags: {}, allowed_integrations: ['nope'] });
    await compare(t, nango, 'api-sessions-bad-key.txt', 'POST',
                  '/connect/sessions', { tags: {} },
                  { key: '99999999-9999-4999-8999-999999999999' });
    await compare(t, nango, 'api-reconnect-unknown.txt', 'POST',
                  '/connect/sessions/reconnect',
                  { connection_id: 'nope', integration_id: 'test-none' });

    await populate(nango);
    await compare(t, nango, 'api-connections-list.txt', 'GET',
                  '/connections');

    at(nango, '08:27:14.990');
    await compare(t, nango, 'api-connection-get.txt', 'GET',
                  `${two}?provider_config_key=test-apikey`);
    await compare(t, nango, 'api-connection-get-404.txt', 'GET',
                  '/connections/nope?provider_config_key=test-apikey');
    await compare(t, nango, 'api-connection-delete.txt', 'DELETE',
                  `${two}?provider_config_key=test-apikey`);
    await compare(t, nango, 'api-connection-delete-again.txt', 'DELETE',
                  `${two}?provider_config_key=test-apikey`);
});


test('webhooks', async (t) => {
    const rx = await h.receiver(t);
    const nango = await h.start(t, {
        signingKey: SIGNING_KEY,
        settings: { webhook_url: rx.url, webhook_lag_ms: 0 },
    });

    await populate(nango);

    const denied = await h.session(nango, BOB);

    await nango.control('POST', 'deny', {
        token: denied,
        integration: 'test-oauth2',
        connection_id: 'ab9bd4fe-d828-4e5a-90eb-b3645542ac18',
        wait: true,
    });

    await nango.control('POST', 'state', { connections: [{
        integration: 'test-oauth2',
        connection_id: 'b4d976af-e09d-4d43-9207-51a9f386c5b6',
        tags: { end_user_id: 'user-42', end_user_email: 'ann@example.com' },
    }] });
    await nango.control('POST', 'refresh-fail', {
        integration: 'test-oauth2',
        connection_id: 'b4d976af-e09d-4d43-9207-51a9f386c5b6',
        wait: true,
    });

    const order = [null, 'apikey-creation.http', 'apikey-override-notags.http',
                   'tagsonly-creation.http', null, 'oauth2-denied.http',
                   'oauth2-refresh-error.http'];

    assert.strictEqual(rx.requests.length, order.length);

    for (const [i, name] of order.entries()) {
        if (name === null) {
            continue;
        }

        await t.test(name, () => {
            assert.strictEqual(
                rx.requests[i].text.replace(`127.0.0.1:${rx.port}`,
                                            '127.0.0.1:18080'),
                h.capture(name).text);
        });
        compared.add(name);
    }
});


test('no capture is left out', () => {
    assert.deepStrictEqual([...compared].sort(), h.captureNames());
});


test('the copies are the originals', (t) => {
    if (!fs.existsSync(h.ORIGINALS)) {
        t.skip('no originals beside this repository');
        return;
    }

    const kept = path.resolve(__dirname, '../captures');

    for (const name of fs.readdirSync(h.ORIGINALS)) {
        assert.ok(fs.readFileSync(path.join(h.ORIGINALS, name))
            .equals(fs.readFileSync(path.join(kept, name))), name);
    }
});


test('signatures', () => {
    const body = '{"type":"sync","connectionId":"test-connection",'
                 + '"providerConfigKey":"test-provider",'
                 + '"syncName":"test-sync","model":"TestModel",'
                 + '"responseResults":{"added":5,"updated":0,"deleted":0}}';
    const vectors = [
        ['test-secret-key', body,
         'ce6f82d8555253066e19ba3525ebab872d906b9f4607481a889b991b29b17b3a'],
        ['test-webhook-signing-key', body,
         'ff458d4d1b72d824612760b25f0fcf8d3fdfb6dc174fe4528e78cbd35632ce24'],
        ['test-webhook-signing-key', '',
         '1ea9c291c74b87f176729283ae2d9e266c59f610d1f83eb4d9b2c035e068321a'],
    ];

    for (const [key, text, hmac] of vectors) {
        assert.strictEqual(sign(key, text).hmac, hmac);
    }
});


test('the full headers are those and more, about 2 KB', async (t) => {
    const nango = await h.start(t, { settings: { rate_limit: 200 } });
    const answer = await h.call(nango, 'GET', '/connections');
    const names = answer.raw.filter((_, i) => i % 2 === 0);
    const short = h.capture('api-connections-list.txt').lines
        .map((line) => line.split(':')[0]);
    const size = answer.raw.join('').length + 4 * names.length;

    assert.deepStrictEqual(names.filter((name) => short.includes(name)),
                           short);
    assert.ok(size > 1700 && size < 2600, `${size} bytes`);
});
