/*
 * What Connect UI needs: its own files, the API that it authorises by, and
 * the popup with the WebSocket that says how it ended.  How it looks to a
 * browser is t/e2e/browser.test.js's.
 */

'use strict';

const assert = require('node:assert');
const crypto = require('node:crypto');
const http = require('node:http');

const h = require('./helper');

const { test } = h;


/* A WebSocket's client: next() is the next message, null once it is over. */
function listenTo(t, nango) {
    const key = crypto.randomBytes(16).toString('base64');
    const messages = [];
    let waiting = null;
    let over = false;
    let pending = Buffer.alloc(0);

    const wake = () => {
        if (waiting && (messages.length > 0 || over)) {
            waiting(messages.shift() || null);
            waiting = null;
        }
    };

    return new Promise((resolve, reject) => {
        const req = http.get(nango.url, {
            headers: {
                connection: 'Upgrade', upgrade: 'websocket',
                'sec-websocket-key': key, 'sec-websocket-version': '13',
            },
        });

        req.on('error', reject);
        req.on('upgrade', (res, socket, head) => {
            const read = (data) => {
                pending = Buffer.concat([pending, data]);

                while (pending.length >= 2) {
                    const long = pending[1] === 126;
                    const start = long ? 4 : 2;
                    const length = long && pending.length >= 4
                        ? pending.readUInt16BE(2) : pending[1];

                    if (pending.length < start + length) {
                        return;
                    }

                    if (pending[0] === 0x81) {
                        messages.push(JSON.parse(
                            pending.subarray(start, start + length)));
                    }

                    pending = pending.subarray(start + length);
                }

                wake();
            };

            t.after(() => socket.destroy());
            socket.on('data', read);
            socket.on('error', () => {});
            socket.on('close', () => {
                over = true;
                wake();
            });
            read(head);
            resolve({
                accept: res.headers['sec-websocket-accept'],
                expected: crypto.createHash('sha1')
                    .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
                    .digest('base64'),
                socket,
                next: () => new Promise((done) => {
                    waiting = done;
                    wake();
                }),
            });
        });
    });
}


/* A popup up to the provider's consent: {state, cookie, page, ws}. */
async function begin(t, nango, body, integration) {
    const token = await h.session(nango, body);
    const ws = await listenTo(t, nango);
    const { ws_client_id: client } = await ws.next();
    const first = await get(nango, `/oauth/connect/${integration}`
        + `?connect_session_token=${token}&ws_client_id=${client}`);

    assert.strictEqual(first.status, 302, first.text);

    const page = await get(nango, first.headers.location);

    assert.strictEqual(page.status, 200);

    return {
        ws, page: page.text,
        state: /state=([\w-]+)/.exec(first.headers.location)[1],
        cookie: first.headers['set-cookie'][0].split(';')[0],
    };
}


function get(nango, url, headers) {
    return h.call(nango, 'GET', url, undefined, { key: null, headers });
}


function post(nango, url, body) {
    return h.call(nango, 'POST', url, body, { key: null });
}


const OWNER = { tags: { end_user_id: '7' } };


test('files of Connect UI, which any page may frame', async (t) => {
    const nango = await h.start(t, { connectUi: 0 });
    const ui = nango.connectUi;
    const link = (await h.call(nango, 'POST', '/connect/sessions', OWNER))
        .json.data.connect_link;

    assert.ok(link.startsWith(`${ui.url}/?session_token=`), link);

    for (const name of ['/?apiURL=x', '/connect.js', '/connect.css']) {
        const answer = await get(ui, name);

        assert.strictEqual(answer.status, 200);
        assert.strictEqual(answer.headers['x-frame-options'], undefined);
        assert.doesNotMatch(answer.headers['content-security-policy'],
                            /frame-ancestors/);
    }

    for (const name of ['/../connect_ui.js', '/nango.js', '/index.html']) {
        assert.strictEqual((await get(ui, name)).status, 404);
    }

    assert.strictEqual((await post(ui, '/', {})).status, 404);
});


test('a popup: consent, callback, and who waits is told', async (t) => {
    const rx = await h.receiver(t);
    const nango = await h.start(t, { settings: { webhook_url: rx.url } });
    const { ws, page, state, cookie } = await begin(t, nango, OWNER, 'github');

    assert.strictEqual(ws.accept, ws.expected);
    assert.match(page, /GitHub asks for your consent/);
    assert.ok(page.includes(`action="${nango.url}/oauth/callback"`));

    const done = await get(nango, `/oauth/callback?state=${state}&code=x`,
                           { cookie: `a=b; ${cookie}` });

    assert.match(done.text, /You may close this window/);
    assert.match(done.text, /"type":"nango_oauth_callback_success"/);

    const said = await ws.next();
    const [made] = (await nango.control('GET', 'state')).connections;

    assert.deepStrictEqual(said, {
        message_type: 'success', provider_config_key: 'github',
        connection_id: made.connection_id, is_pending: false,
    });
    assert.deepStrictEqual(made.tags, { end_user_id: '7' });

    await nango.control('GET', 'webhooks?wait=1');
    assert.strictEqual(JSON.parse(rx.requests[0].body).operation, 'creation');

    /* It was used up. */
    const again = await get(nango, `/oauth/callback?state=${state}&code=x`,
                            { cookie });

    assert.match(again.text, /No session found/);
});


test('a popup in which the user says no', async (t) => {
    const rx = await h.receiver(t);
    const nango = await h.start(t, { settings: { webhook_url: rx.url } });
    const { ws, state, cookie } = await begin(t, nango, OWNER, 'github');
    const done = await get(nango, `/oauth/callback?state=${state}`
                           + '&error=access_denied', { cookie });

    assert.match(done.text, /"type":"nango_oauth_callback_error"/);
    assert.match((await ws.next()).error_desc, /access_denied/);

    await nango.control('GET', 'webhooks?wait=1');
    assert.strictEqual(JSON.parse(rx.requests[0].body).success, false);
    assert.strictEqual((await nango.control('GET', 'state')).connections
        .length, 0);
});


test('a callback without the cookie of its beginning', async (t) => {
    const nango = await h.start(t);
    const { ws, state } = await begin(t, nango, OWNER, 'github');

    for (const headers of [{}, { cookie: 'nango_oauth=another' }]) {
        const done = await get(nango,
            `/oauth/callback?state=${state}&code=x`, headers);

        assert.match(done.text, /without the cookie/);
        assert.strictEqual((await ws.next()).error_type, 'invalid_state');
    }

    assert.strictEqual((await nango.control('GET', 'state')).connections
        .length, 0);
});


test('the provider goes back to the callback URL that is set', async (t) => {
    const url = 'https://app.example.com/oauth-callback';
    const nango = await h.start(t, { settings: { callback_url: url } });
    const { page } = await begin(t, nango, OWNER, 'github');

    assert.strictEqual(page.split(`action="${url}"`).length, 3);
});


test('popups that cannot begin', async (t) => {
    const nango = await h.start(t);
    const token = await h.session(nango, {
        ...OWNER, allowed_integrations: ['slack', 'test-apikey'],
    });
    const ws = await listenTo(t, nango);
    const { ws_client_id: client } = await ws.next();
    const wrong = [
        ['github', token, 400, 'integration_not_allowed'],
        ['test-apikey', token, 400, 'invalid_auth_mode'],
        ['nothing', token, 404, 'unknown_provider_config'],
        ['slack', 'x', 401, 'unknown_connect_session_token'],
    ];

    for (const [id, given, status, code] of wrong) {
        const answer = await get(nango, `/oauth/connect/${id}`
            + `?connect_session_token=${given}&ws_client_id=${client}`);

        assert.strictEqual(answer.status, status);
        assert.strictEqual((await ws.next()).error_type, code);
    }

    assert.strictEqual((await get(nango, '/_provider/authorize?state=x'))
        .status, 400);
});


test('a WebSocket ends when its client closes', async (t) => {
    const nango = await h.start(t);
    const ws = await listenTo(t, nango);

    await ws.next();
    assert.strictEqual(nango.sockets.clients.size, 1);
    ws.socket.write(Buffer.from([0x88, 0x80, 0, 0, 0, 0]));
    assert.strictEqual(await ws.next(), null);
    assert.strictEqual(nango.sockets.clients.size, 0);
});


test('an API key that is typed in', async (t) => {
    const rx = await h.receiver(t);
    const nango = await h.start(t, { settings: { webhook_url: rx.url } });
    const token = await h.session(nango, OWNER);
    const url = (id, given) => `/api-auth/api-key/${id}`
                               + `?connect_session_token=${given || token}`;
    const good = await post(nango, url('test-apikey'), { apiKey: 'k-1' });

    assert.strictEqual(good.status, 200);
    assert.strictEqual(good.json.providerConfigKey, 'test-apikey');

    const made = await h.call(nango, 'GET',
        `/connections/${good.json.connectionId}`
        + '?provider_config_key=test-apikey');

    assert.deepStrictEqual(made.json.credentials,
                           { type: 'API_KEY', apiKey: 'k-1' });
    assert.deepStrictEqual(made.json.tags, { end_user_id: '7' });

    const wrong = [
        [url('test-apikey'), {}, 400, 'invalid_body'],
        [url('test-apikey'), { apiKey: '' }, 400, 'invalid_body'],
        [url('test-apikey'), { apiKey: 'bad' }, 400,
         'connection_test_failed'],
        [url('github'), { apiKey: 'x' }, 400, 'invalid_auth_mode'],
        [url('test-apikey', 'x'), { apiKey: 'x' }, 401,
         'unknown_connect_session_token'],
    ];

    for (const [path, body, status, code] of wrong) {
        const answer = await post(nango, path, body);

        assert.strictEqual(answer.status, status);
        assert.strictEqual(answer.json.error.code, code);
    }

    await nango.control('GET', 'webhooks?wait=1');
    assert.deepStrictEqual(
        rx.requests.map(({ body }) => JSON.parse(body).success),
        [true, false]);
});


test('names and passwords, and nothing at all', async (t) => {
    const nango = await h.start(t, { integrations: [
        { id: 'basic', provider: 'basic', auth_mode: 'BASIC' },
        { id: 'none', provider: 'unauthenticated', auth_mode: 'NONE' },
    ] });
    const token = await h.session(nango, OWNER);
    const query = `?connect_session_token=${token}`;
    const basic = await post(nango, `/api-auth/basic/basic${query}`,
                             { username: 'a', password: 'b' });
    const none = await post(nango, `/auth/unauthenticated/none${query}`);

    assert.strictEqual(basic.status, 200);
    assert.strictEqual(none.status, 200);
    assert.strictEqual((await post(nango, `/api-auth/basic/basic${query}`,
                                   { username: 'a' })).status, 400);
});


test('a reconnect by a form keeps the connection', async (t) => {
    const nango = await h.start(t);
    const { connection_id: id } = await h.connected(nango, OWNER,
                                                    'test-apikey');
    const session = await h.call(nango, 'POST', '/connect/sessions/reconnect',
        { connection_id: id, integration_id: 'test-apikey', ...OWNER });
    const answer = await post(nango, '/api-auth/api-key/test-apikey'
        + `?connect_session_token=${session.json.data.token}`,
        { apiKey: 'k-2' });

    assert.strictEqual(answer.json.connectionId, id);
});


test('providers say how one authorises', async (t) => {
    const nango = await h.start(t);
    const key = await h.session(nango, OWNER);
    const answer = await h.call(nango, 'GET', '/providers/airtable-pat',
                                undefined, { key });

    assert.strictEqual(answer.json.data.auth_mode, 'API_KEY');
    assert.strictEqual((await h.call(nango, 'GET', '/providers/x')).status,
                       404);
    assert.strictEqual((await get(nango, '/providers/github')).status, 401);
});


test("a provider's answer of the proxy", async (t) => {
    const nango = await h.start(t, { settings: { proxy: 'provider' } });
    const { connection_id: id } = await h.connected(nango, OWNER, 'github');
    const ask = (connection) => h.call(nango, 'GET', '/proxy/user?a=b',
        undefined, { headers: { 'connection-id': connection,
                                'provider-config-key': 'github' } });
    const good = await ask(id);

    assert.strictEqual(good.status, 200);
    assert.strictEqual(good.json.account, '7');
    assert.strictEqual(good.json.asked, 'GET /user?a=b');
    assert.ok(!good.text.includes('11111111-1111'));

    await nango.control('POST', 'refresh-fail',
                        { integration: 'github', connection_id: id });

    assert.strictEqual((await ask(id)).status, 424);
    assert.strictEqual((await ask('nobody')).status, 404);
});
