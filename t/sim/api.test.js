/*
 * The API as a client sees it: who gets in, how often, what sessions do to
 * connections and what lists show of them.
 */

'use strict';

const assert = require('node:assert');

const h = require('./helper');
const { parse } = require('./query');

const { test } = h;

const list = (nango, query) => h.call(nango, 'GET', `/connections?${query}`);
const ids = (answer) => answer.json.connections.map((c) => c.connection_id);


test('keys', async (t) => {
    const nango = await h.start(t, { settings: { bad_key_ms: 50 } });
    const cases = [
        [null, 'missing_auth_header'],
        ['not-a-uuid', 'invalid_secret_key_format'],
        ['99999999-9999-4999-8999-999999999999', 'unknown_account'],
    ];

    for (const [key, code] of cases) {
        const began = Date.now();
        const answer = await h.call(nango, 'GET', '/connections', undefined,
                                    { key });

        assert.strictEqual(answer.status, 401);
        assert.ok(Date.now() - began >= 45, 'a bad key waits');
        assert.deepStrictEqual(Object.keys(answer.json.error),
                               ['message', 'code', 'payload']);
        assert.strictEqual(answer.json.error.code, code);
        assert.strictEqual(answer.headers['x-ratelimit-limit'], undefined);
    }

    const small = await h.call(nango, 'GET', '/connections', undefined, {
        key: null,
        headers: { authorization:
                   'bearer 11111111-1111-4111-8111-111111111111' },
    });

    assert.strictEqual(small.status, 401, 'Bearer has a capital B');
});


test('the rate limit', async (t) => {
    const nango = await h.start(t, { settings: { rate_limit: 3 } });
    const left = [];

    nango.clock.set(Date.parse('2026-11-23T08:00:00.500Z'), true);

    for (let i = 0; i < 3; i++) {
        const answer = await list(nango, '');

        assert.strictEqual(answer.status, 200);
        left.push(answer.headers['x-ratelimit-remaining']);
    }

    assert.deepStrictEqual(left, ['2', '1', '0']);

    nango.clock.advance(10500);

    const over = await h.call(nango, 'POST', '/connect/sessions', {});

    assert.strictEqual(over.status, 429);
    assert.strictEqual(over.headers['retry-after'], '49');
    assert.strictEqual(over.headers['x-ratelimit-remaining'], '0');
    assert.strictEqual(over.headers['x-ratelimit-reset'],
                       String(Date.parse('2026-11-23T08:01:00Z') / 1000));
    assert.deepStrictEqual(over.json, { error: {
        code: 'too_many_request', method: 'POST', path: '/connect/sessions',
    } });

    nango.clock.advance(49500);
    assert.strictEqual((await list(nango, '')).status, 200);
});


test('a session token is for many uses and half an hour', async (t) => {
    const nango = await h.start(t);
    const token = await h.session(nango, {
        tags: { end_user_id: '1' }, allowed_integrations: ['github'],
    });
    const connect = () => nango.control('POST', 'connect', { token });
    const first = await connect();
    const second = await connect();

    assert.notStrictEqual(first.connection_id, second.connection_id);
    assert.strictEqual(second.operation, 'creation');
    assert.strictEqual(nango.state.connections.size, 2);

    nango.clock.advance(29 * 60000);
    await connect();
    nango.clock.advance(60000);
    await assert.rejects(connect, /unknown_connect_session_token/);

    const answer = await h.call(nango, 'GET', '/connect/session', undefined,
                                { key: token });

    assert.strictEqual(answer.status, 401);
    assert.strictEqual(answer.json.error.code,
                       'unknown_connect_session_token');
});


test('a session to its own token', async (t) => {
    const nango = await h.start(t);
    const token = await h.session(nango, {
        end_user: { id: 'u', email: 'a@b.co' },
        allowed_integrations: ['github', 'slack'],
    });
    const ask = (method) => h.call(nango, method, '/connect/session',
                                   undefined, { key: token });
    const seen = await ask('GET');

    assert.strictEqual(seen.status, 200);
    assert.deepStrictEqual(seen.json.data.allowed_integrations,
                           ['github', 'slack']);
    assert.deepStrictEqual(seen.json.data.endUser, {
        id: 'u', display_name: null, email: 'a@b.co', tags: null,
        organization: null,
    });
    assert.ok(seen.headers['x-ratelimit-limit']);

    const catalog = await h.call(nango, 'GET', '/integrations', undefined,
                                 { key: token });

    assert.deepStrictEqual(catalog.json.data.map((one) => one.unique_key),
                           ['github', 'slack']);

    assert.strictEqual((await ask('DELETE')).status, 204);
    assert.strictEqual((await ask('DELETE')).status, 401);
    await assert.rejects(nango.control('POST', 'connect', { token }));
});


test('a session allows what it lists', async (t) => {
    const nango = await h.start(t);
    const token = await h.session(nango, {
        tags: {}, allowed_integrations: ['github', 'slack'],
    });
    const connect = (integration) =>
        nango.control('POST', 'connect', { token, integration });

    await connect('slack');
    await assert.rejects(connect('test-none'), /integration_not_allowed/);
    await assert.rejects(connect(undefined), /unknown_provider_config/);
});


test('a reconnect without tags wipes them', async (t) => {
    const nango = await h.start(t);
    const made = await h.connected(nango, { tags: { end_user_id: '7' } },
                                   'github');
    const reconnect = async (more) => {
        const answer = await h.call(nango, 'POST',
            '/connect/sessions/reconnect', {
                connection_id: made.connection_id,
                integration_id: 'github',
                ...more,
            });
        const again = await nango.control('POST', 'connect',
            { token: answer.json.data.token });

        assert.strictEqual(again.operation, 'override');
        assert.strictEqual(again.connection_id, made.connection_id);
    };
    const found = async () =>
        ids(await list(nango, 'tags[end_user_id]=7')).length;

    await reconnect({ tags: { end_user_id: '7', plan: 'pro' } });
    assert.strictEqual(await found(), 1);

    await reconnect({});
    assert.strictEqual(await found(), 0);

    const all = await list(nango, '');

    assert.deepStrictEqual(all.json.connections.map((c) => c.tags), [{}]);

    await reconnect({ end_user: { id: '7' } });
    assert.strictEqual(await found(), 1);
});


test('a session mends what was broken', async (t) => {
    const nango = await h.start(t);
    const made = await h.connected(nango, { tags: {} }, 'github');
    const one = { integration: 'github', connection_id: made.connection_id };
    const get = () => h.call(nango, 'GET',
        `/connections/${made.connection_id}?provider_config_key=github`);

    await nango.control('POST', 'refresh-fail', one);

    const broken = await get();

    assert.strictEqual(broken.status, 424);
    assert.strictEqual(broken.json.error.code, 'invalid_credentials');
    assert.strictEqual((await list(nango, '')).json.connections[0]
        .errors[0].type, 'auth');

    const answer = await h.call(nango, 'POST', '/connect/sessions/reconnect', {
        connection_id: made.connection_id, integration_id: 'github', tags: {},
    });

    await nango.control('POST', 'connect', { token: answer.json.data.token });
    assert.strictEqual((await get()).status, 200);
    assert.deepStrictEqual((await list(nango, '')).json.connections[0].errors,
                           []);
});


test('one connection', async (t) => {
    const nango = await h.start(t);
    const odd = 'a {"b":"c\'d|e\\f/g"}';
    const url = `/connections/${encodeURIComponent(odd)}`;

    await nango.control('POST', 'state', {
        connections: [{ integration: 'github', connection_id: odd }],
    });

    const get = (query) => h.call(nango, 'GET', `${url}?${query}`);
    const seen = await get('provider_config_key=github');

    assert.strictEqual(seen.status, 200);
    assert.strictEqual(seen.json.connection_id, odd);
    assert.strictEqual(seen.json.credentials.refresh_token, undefined);
    assert.strictEqual(seen.json.credentials.raw.refresh_token, undefined);

    const whole = await get('provider_config_key=github&refresh_token=true');

    assert.ok(whole.json.credentials.refresh_token);

    const forced = await get('provider_config_key=github&force_refresh=1');

    assert.notStrictEqual(forced.json.credentials.access_token,
                          seen.json.credentials.access_token);

    nango.clock.advance(3600001);

    const later = await get('provider_config_key=github');

    assert.notStrictEqual(later.json.credentials.access_token,
                          forced.json.credentials.access_token,
                          'a token that ran out is refreshed');

    const errors = [
        ['', 400, 'invalid_query_params'],
        ['provider_config_key=nope', 400, 'unknown_provider_config'],
        ['provider_config_key=slack', 404, 'not_found'],
    ];

    for (const [query, status, code] of errors) {
        const answer = await get(query);

        assert.strictEqual(answer.status, status);
        assert.strictEqual(answer.json.error.code, code);
    }
});


test('rows that go while one pages make others skip', async (t) => {
    const nango = await h.start(t);
    const { connection_ids: made } = await nango.control('POST',
        'connections/bulk', { count: 7, integration: 'github' });
    const newest = [...made].reverse();
    const page = async (n) => ids(await list(nango, `limit=3&page=${n}`));

    assert.deepStrictEqual(await page(0), newest.slice(0, 3));
    assert.deepStrictEqual(await page(1), newest.slice(3, 6));
    assert.deepStrictEqual(await page(2), newest.slice(6));
    assert.deepStrictEqual(await page(3), []);

    for (const id of newest.slice(0, 2)) {
        await nango.control('POST', 'delete',
                            { integration: 'github', connection_id: id });
    }

    assert.deepStrictEqual(await page(1), newest.slice(5),
                           'two rows moved to the page before');
});


test('filters of a list', async (t) => {
    const nango = await h.start(t);

    await nango.control('POST', 'connections/bulk', {
        count: 20, owners: 5, integration: 'github',
        tags: { end_user_id: 'u{owner}', n: '{n}' },
    });
    await h.connected(nango, { end_user: { id: 'u3', email: 'ann@b.co' },
                               organization: { id: 'o1' } },
                      'slack', { connection_id: 'special' });

    const count = async (query) => ids(await list(nango, query)).length;

    assert.strictEqual(await count(''), 21);
    assert.strictEqual(await count('tags[end_user_id]=u3'), 5);
    assert.strictEqual(await count('tags[End_User_Id]=u3&tags[n]=8'), 1);
    assert.strictEqual(await count('tags[end_user_id]=u3&tags[n]=9'), 0);
    assert.strictEqual(await count('tags[end_user_id]=none'), 0);
    assert.strictEqual(await count('integrationId=slack, github'), 21);
    assert.strictEqual(await count('integrationId=slack'), 1);
    assert.strictEqual(await count('connectionId=special'), 1);
    assert.strictEqual(await count('endUserId=u3'), 1);
    assert.strictEqual(await count('endUserOrganizationId=o1'), 1);
    assert.strictEqual(await count('search=ANN'), 1);

    const { connection_id: id } = (await list(nango, 'tags[n]=8')).json
        .connections[0];

    await nango.control('POST', 'retag', {
        integration: 'github', connection_id: id, tags: { n: 'other' },
    });
    assert.strictEqual(await count('tags[n]=8'), 0);
    assert.strictEqual(await count('tags[n]=other'), 1);
});


test('newest first, by date and not by arrival', async (t) => {
    const nango = await h.start(t);

    await nango.control('POST', 'state', { connections: [
        { integration: 'github', connection_id: 'b', created:
          '2026-01-02T00:00:00.000Z' },
        { integration: 'github', connection_id: 'c', created:
          '2026-01-03T00:00:00.000Z' },
        { integration: 'github', connection_id: 'a', created:
          '2026-01-01T00:00:00.000Z' },
    ] });

    assert.deepStrictEqual(ids(await list(nango, '')), ['c', 'b', 'a']);
});


test('the catalog', async (t) => {
    const nango = await h.start(t, { integrations: [
        { id: 'z', provider: 'github', display_name: 'GitHub' },
    ] });
    const { json } = await h.call(nango, 'GET', '/integrations');

    assert.deepStrictEqual(Object.keys(json.data[0]), [
        'unique_key', 'provider', 'display_name', 'logo', 'created_at',
        'updated_at',
    ]);
    assert.strictEqual(json.data[0].unique_key, 'z');
    assert.match(json.data[0].logo, /\/images\/template-logos\/github.svg$/);
});


test('the signing key is rotated', async (t) => {
    const nango = await h.start(t);
    const old = nango.state.signingKey;
    const { json } = await h.call(nango, 'POST',
                                  '/environment/webhook-signing-key/rotate');

    assert.match(json.data.webhook_signing_key, /^[0-9a-f-]{36}$/);
    assert.notStrictEqual(json.data.webhook_signing_key, old);
    assert.strictEqual(nango.state.signingKey, json.data.webhook_signing_key);
    assert.strictEqual(nango.state.previousSigningKey, old);
});


test('the proxy echoes', async (t) => {
    const nango = await h.start(t);
    const answer = await h.call(nango, 'PUT', '/proxy/v1/me?a=b', { c: 1 }, {
        headers: { 'Provider-Config-Key': 'github', 'Connection-Id': 'x',
                   'X-Own': 'y' },
    });

    assert.strictEqual(answer.json.method, 'PUT');
    assert.strictEqual(answer.json.path, '/v1/me?a=b');
    assert.strictEqual(answer.json.headers['x-own'], 'y');
    assert.strictEqual(answer.json.body, '{"c":1}');

    const bare = await h.call(nango, 'GET', '/proxy/v1/me');

    assert.strictEqual(bare.json.error.code, 'invalid_headers');
});


test('the OAuth callback', async (t) => {
    const nango = await h.start(t);
    const token = await h.session(nango, {
        tags: {}, allowed_integrations: ['github'],
    });
    const back = (query) => h.call(nango, 'GET', `/oauth/callback?${query}`,
                                   undefined, { key: null });

    assert.match((await back('code=1')).text, /No state found/);
    assert.match((await back('code=1&state=<x>')).text,
                 /No session found for state: &#34;&#60;x/);
    assert.match((await back(`error=access_denied&state=${token}`)).text,
                 /access_denied/);
    assert.strictEqual(nango.state.connections.size, 0);
    assert.match((await back(`code=1&state=${token}`)).text, /Connected/);
    assert.strictEqual(nango.state.connections.size, 1);
});


test('what is not there', async (t) => {
    const nango = await h.start(t);
    const got = await h.call(nango, 'GET', '/nothing');
    const posted = await h.call(nango, 'POST', '/nothing', {});
    const preflight = await h.call(nango, 'OPTIONS', '/connect/session',
                                   undefined, { key: null });

    assert.strictEqual(got.status, 200, 'the dashboard');
    assert.match(got.headers['content-type'], /html/);
    assert.strictEqual(posted.status, 404);
    assert.strictEqual(preflight.status, 204);
    assert.match(preflight.headers['access-control-allow-headers'],
                 /Authorization/);
});


test('query strings', () => {
    const cases = [
        ['a=1&b=%20+x', { a: '1', b: '  x' }],
        ['a=1&a=2', { a: ['1', '2'] }],
        ['t[k]=v&t%5Bl%5D=w', { t: { k: 'v', l: 'w' } }],
        ['t[]=1&t[]=2', { t: ['1', '2'] }],
        ['t[0]=1', { t: ['1'] }],
        ['t[a][b]=1', { t: { a: { b: '1' } } }],
        ['a', { a: '' }],
        ['a=%zz', { a: '%zz' }],
        ['__proto__[x]=1', {}],
        ['', {}],
    ];

    for (const [text, value] of cases) {
        assert.deepStrictEqual(parse(text), value, text);
    }
});
