/*
 * Nango's own Node SDK against the simulator: what a backend that trusts the
 * SDK sees must be what it would see of Nango.  Run "npm ci" here first.
 */

'use strict';

const assert = require('node:assert');

const { Nango } = require('@nangohq/node');
const h = require('../sim/helper');
const { API_KEY } = require('../sim/nango');

const { test } = h;

/* The key that signed the captures. */
const SIGNING_KEY = '1e178f20-544e-4a7a-8f4a-309165e97254';


async function setUp(t, options) {
    const sim = await h.start(t, options);

    return { sim, nango: new Nango({ host: sim.url, apiKey: API_KEY,
                                     webhookSigningKey: SIGNING_KEY }) };
}


function headersOf(captured) {
    return Object.fromEntries(captured.lines.map((line) => {
        const colon = line.indexOf(': ');

        return [line.slice(0, colon), line.slice(colon + 2)];
    }));
}


test('createConnectSession', async (t) => {
    const { sim, nango } = await setUp(t);
    const { data } = await nango.createConnectSession({
        tags: { end_user_id: '42', Team: 'Blue' },
        allowed_integrations: ['github'],
        integrations_config_defaults: {
            github: { user_scopes: 'repo',
                      authorization_params: { login_hint: 'a@b.co' } },
        },
    });

    assert.match(data.token, /^nango_connect_session_[0-9a-f]{64}$/);
    assert.ok(data.connect_link.endsWith(`?session_token=${data.token}`));
    assert.ok(Date.parse(data.expires_at) > Date.now());
    assert.deepStrictEqual({ ...sim.state.session(data.token).tags },
                           { end_user_id: '42', team: 'Blue' });
});


test('createReconnectSession', async (t) => {
    const { sim, nango } = await setUp(t);
    const first = await nango.createConnectSession({
        tags: {}, allowed_integrations: ['github'],
    });
    const made = await sim.control('POST', 'connect',
                                   { token: first.data.token });
    const { data } = await nango.createReconnectSession({
        connection_id: made.connection_id,
        integration_id: 'github',
        tags: { end_user_id: '42' },
    });
    const again = await sim.control('POST', 'connect', { token: data.token });

    assert.strictEqual(again.operation, 'override');
    assert.strictEqual(again.connection_id, made.connection_id);
});


test('listConnections', async (t) => {
    const { sim, nango } = await setUp(t);

    await sim.control('POST', 'connections/bulk', {
        count: 5, owners: 2, integration: 'github',
        tags: { end_user_id: 'u{owner}' },
    });

    const all = await nango.listConnections({ limit: 3 });
    const rest = await nango.listConnections({ limit: 3, page: 1 });
    const own = await nango.listConnections({ tags: { end_user_id: 'u1' } });

    assert.strictEqual(all.connections.length, 3);
    assert.strictEqual(rest.connections.length, 2);
    assert.strictEqual(own.connections.length, 2);
    assert.deepStrictEqual(own.connections[0].tags, { end_user_id: 'u1' });
    assert.deepStrictEqual(own.connections[0].errors, []);
});


test('getConnection and getToken', async (t) => {
    const { sim, nango } = await setUp(t);
    /* The SDK does not encode a slash. */
    const id = 'a {"c":"d"}';

    await sim.control('POST', 'state', {
        connections: [{ integration: 'github', connection_id: id }],
    });

    const seen = await nango.getConnection('github', id);

    assert.strictEqual(seen.connection_id, id);
    assert.strictEqual(await nango.getToken('github', id),
                       seen.credentials.access_token);
    assert.strictEqual(seen.credentials.refresh_token, undefined);
    assert.ok((await nango.getConnection('github', id, false, true))
        .credentials.refresh_token);
});


test('deleteConnection', async (t) => {
    const { sim, nango } = await setUp(t);

    await sim.control('POST', 'state', {
        connections: [{ integration: 'github', connection_id: 'x' }],
    });

    assert.strictEqual((await nango.deleteConnection('github', 'x')).status,
                       200);
    await assert.rejects(nango.deleteConnection('github', 'x'), (e) => {
        assert.strictEqual(e.response.status, 400);
        assert.strictEqual(e.response.data.error.code, 'unknown_connection');
        return true;
    });
});


test('listIntegrations', async (t) => {
    const { nango } = await setUp(t);
    const { data, configs } = await nango.listIntegrations();

    assert.ok((data || configs).some((one) => one.unique_key === 'github'));
});


test('errors', async (t) => {
    const { sim, nango } = await setUp(t, { settings: { rate_limit: 4 } });
    const stranger = new Nango({
        host: sim.url, apiKey: '99999999-9999-4999-8999-999999999999',
    });
    const fails = (promise, status, code) => assert.rejects(promise, (e) => {
        assert.strictEqual(e.response.status, status);
        assert.strictEqual(e.response.data.error.code, code);
        return true;
    });

    await fails(stranger.listConnections(), 401, 'unknown_account');
    await fails(nango.createConnectSession({}), 400, 'invalid_body');
    await fails(nango.createConnectSession({ tags: {}, nothing: 1 }), 400,
                'invalid_body');
    await fails(nango.createReconnectSession({ connection_id: 'x',
                                               integration_id: 'github' }),
                400, 'invalid_body');
    await fails(nango.getConnection('github', 'x'), 404, 'not_found');
    await fails(nango.getConnection('github', 'x'), 429, 'too_many_request');
});


test('captured webhooks verify', () => {
    const nango = new Nango({ apiKey: API_KEY,
                              webhookSigningKey: SIGNING_KEY });
    const old = new Nango({ secretKey: SIGNING_KEY });
    const names = h.captureNames().filter((name) => name.endsWith('.http'));

    assert.ok(names.length >= 5);

    for (const name of names) {
        const captured = h.capture(name);
        const headers = headersOf(captured);
        const wrong = {
            ...headers,
            'X-Nango-Hmac-Sha256': headers['X-Nango-Signature'],
        };

        assert.ok(nango.verifyIncomingWebhookRequest(captured.body, headers));
        assert.ok(!nango.verifyIncomingWebhookRequest(`${captured.body} `,
                                                      headers));
        assert.ok(!nango.verifyIncomingWebhookRequest(captured.body, wrong));
        assert.ok(old.verifyWebhookSignature(headers['X-Nango-Signature'],
                                             JSON.parse(captured.body)));
    }
});


test("the simulator's webhooks verify", async (t) => {
    const rx = await h.receiver(t);
    const { sim, nango } = await setUp(t, {
        signingKey: SIGNING_KEY,
        settings: { webhook_url: rx.url },
    });

    await h.connected(sim, { tags: { team: '\u00dcn\u00ef "x"' } }, 'github');
    await sim.control('POST', 'send', { raw: '{}', key: 'other', wait: true });

    const [good, bad] = rx.requests.map((request) => nango
        .verifyIncomingWebhookRequest(request.body, {
            'x-nango-hmac-sha256':
                /X-Nango-Hmac-Sha256: (\w+)/.exec(request.text)[1],
        }));

    assert.strictEqual(good, true);
    assert.strictEqual(bad, false);
});
