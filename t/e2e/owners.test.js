/*
 * Whose connection it is: random owners with whatever a name can hold, random
 * events, and after them every owner asks for what is everybody's.  A plain
 * model says who may see, reconnect, check and delete what; of all the others
 * Nango hears nothing.  Behind auth_basic, auth_request and satisfy any.
 */

'use strict';

const assert = require('node:assert');
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const nodeTest = require('node:test');

const sim = require('../sim/helper');
const { API_KEY } = require('../sim/nango');
const { Client, hmac, once } = require('./client');
const { random } = require('./load');
const { create, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const SEED = Number(process.env.NANGO_SEED) || 20261124;
const ROUNDS = process.env.NANGO_LONG ? 60 : 6;

/* Those that are alike where somebody does not look closely. */
const OWNERS = [
    '42', '042', '4', '42.0', '4 2', '42,43', '42;43', '42|43', '42&43',
    '42=43', '42/43', '42\\', '42"', '42\'', '"42"', '%34%32', '42%00',
    '42\\u0000', '42\\x00', '$42', '${remote_user}', '*', '?', '.', '..',
    'null', 'true', '{}', '[]', '{"end_user_id":"42"}',
    '42","end_user_id":"43', 'Ann', 'ann', 'ANN', '\u00e9', 'e\u0301', 'ﬁ',
    'fi', '４２',
    'а', 'a', '😀', '\u200b42', '42\u00a0', '42\u2028', 'end_user_id', '-',
    'x'.repeat(255), `${'x'.repeat(254)}y`, 'x'.repeat(254),
    '😀'.repeat(127), `${'😀'.repeat(126)}aa`, '<script>', '42\'--', '42%',
];

/* None that Nango takes: refused, and never cut to one that it takes. */
const REFUSED = ['x'.repeat(256), '😀'.repeat(128), `${'x'.repeat(255)}é`,
                 Buffer.from([0x34, 0x32, 0xff]).toString('latin1'),
                 '42\u0001', '42\u007f'];

function location(name, more) {
    return `
    location = /${name} {
        nango_session_limit off;
        nango_session_reuse off;
        ${more}
    }
`;
}

const USER = 'nango_owner end_user_id $http_x_user;';
const BOTH = `${USER} nango_owner organization_id $http_x_org;`;

const APP = 'nango_require $arg_i id=$arg_id; empty_gif;';

const SERVER = [
    'location = /webhook { nango_webhook; }',
    location('app', `${USER} ${APP}`),
    location('both/app', `${BOTH} ${APP}`),
    location('catalog', `${USER} nango_catalog;`),
    location('connections', `${USER} nango_connections;`),
    location('reconnect', `${USER} nango_reconnect;`),
    location('both', `${BOTH} nango_connections;`),
    location('both/reconnect', `${BOTH} nango_reconnect;`),
].join('\n');


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: process.env.NANGO_LONG ? 900000 : 90000 },
                    fn);
}


async function running(t, server) {
    const nango = await sim.start(t, { settings: { rate_limit: 1000000 } });
    const nginx = await create(t, {
        http: `
    nango_store @STORE@;
    keepalive_requests 1000000;
    nango_environment prod {
        api                 ${nango.url};
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:${API_KEY};
        webhook_signing_key data:${KEY};
        reconcile           off;
    }
`,
        server,
    });

    await nginx.start();
    await until('two workers', () => nginx.workers().length >= 2);

    return { nango, nginx };
}


/* The opaque id, as docs/internals.md has it. */
function opaque(connection) {
    const hash = crypto.createHash('sha256').update('c');

    for (const part of ['prod', connection.integration, connection.id]) {
        const bytes = Buffer.from(part);
        const length = Buffer.alloc(4);

        length.writeUInt32BE(bytes.length);
        hash.update(length).update(bytes);
    }

    return hash.digest('hex').slice(0, 32);
}


class World {
    constructor(nango, nginx, seed) {
        this.nango = nango;
        this.client = new Client(nginx.port);
        this.random = random(seed);
        this.connections = new Map();
        this.number = 0;
    }

    below(n) {
        return Math.floor(this.random() * n);
    }

    pick(list) {
        return list[this.below(list.length)];
    }

    async webhook(connection, operation, tags, success) {
        const body = JSON.stringify({
            connectionId: connection.id, from: 'nango', operation,
            provider: 'github', providerConfigKey: connection.integration,
            success, tags, type: 'auth', number: this.number++,
        });
        const answer = await this.client.request('POST', '/webhook', {
            'Content-Type': 'application/json',
            'X-Nango-Hmac-Sha256': hmac(body, KEY),
        }, body);

        assert.strictEqual(answer.status, 200, answer.text);
    }

    /* One event, and what the model makes of it. */
    async step() {
        const id = `c-${this.below(40)}`;
        const integration = this.pick(['github', 'slack']);
        const key = `${integration}/${id}`;
        const known = this.connections.get(key) || { id, integration };
        const tags = { end_user_id: this.pick(OWNERS) };

        if (this.below(2)) {
            tags.organization_id = this.pick(OWNERS);
        }

        switch (this.below(6)) {

        case 0:
            await this.webhook(known, 'deletion', {}, true);
            known.deleted = true;
            break;

        case 1:
            await this.webhook(known, 'override', {}, true);

            if (!known.deleted) {
                known.tags = known.tags || {};
            }

            break;

        case 2:
            await this.webhook(known, 'refresh', {}, false);

            if (!known.tags) {
                return;
            }

            break;

        default:
            await this.webhook(known, this.pick(['creation', 'override']),
                               tags, true);

            if (!known.deleted) {
                known.tags = tags;
            }
        }

        this.connections.set(key, known);
    }

    owned(user, org) {
        return [...this.connections.values()].filter((c) => !c.deleted
            && c.tags && c.tags.end_user_id === user
            && (org === undefined || c.tags.organization_id === org));
    }

    ask(method, url, user, org, body) {
        return this.client.request(method, url, {
            'X-User': user, ...(org === undefined ? {} : { 'X-Org': org }),
            ...(body ? { 'Content-Type': 'application/json' } : {}),
        }, body ? JSON.stringify(body) : '');
    }

    /* What Nango has: all that live, with their tags. */
    async tell() {
        await this.nango.control('POST', 'reset', {});
        await this.nango.control('POST', 'settings', { rate_limit: 1000000 });
        await this.nango.control('POST', 'state', {
            connections: [...this.connections.values()]
                .filter((c) => !c.deleted && c.tags)
                .map((c) => ({ integration: c.integration,
                               connection_id: c.id, tags: c.tags })),
        });
    }
}


test('everybody sees what is theirs, and nothing else', async (t) => {
    const { nango, nginx } = await running(t, SERVER);
    const world = new World(nango, nginx, SEED);

    t.diagnostic(`NANGO_SEED=${SEED}`);
    t.after(() => world.client.close());

    for (let round = 0; round < ROUNDS; round++) {

        for (let i = 0; i < 60; i++) {
            await world.step();
        }

        for (const user of OWNERS) {
            const answer = await world.ask('GET', '/connections?limit=1000',
                                           user);

            assert.strictEqual(answer.status, 200, `${user}: ${answer.text}`);
            assert.deepStrictEqual(
                answer.json.connections.map((c) => c.id).sort(),
                world.owned(user).map(opaque).sort(), `of ${user}`);
        }

        for (let i = 0; i < 60; i++) {
            const user = world.pick(OWNERS);
            const org = world.pick(OWNERS);
            const answer = await world.ask('GET', '/both', user, org);

            assert.deepStrictEqual(
                answer.json.connections.map((c) => c.id).sort(),
                world.owned(user, org).map(opaque).sort());
        }

        await acts(world);
    }

    /* And who has connected what is told to nobody else. */

    for (const user of OWNERS) {
        const { json, text } = await world.ask('GET', '/catalog', user);

        assert.ok(json && json.integrations, text);

        for (const { integration, connected } of json.integrations) {
            assert.strictEqual(connected, world.owned(user).some((one) =>
                one.integration === integration), `${integration} of ${user}`);
        }
    }

    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
});


/* Owners act on all connections, most of which are not theirs. */
async function acts(world) {
    let asked = 0;

    await world.tell();

    for (let i = 0; i < 150; i++) {
        const all = [...world.connections.values()];
        const c = world.pick(all);
        const own = c.tags && world.below(2);
        const user = own ? c.tags.end_user_id || 'x' : world.pick(OWNERS);
        const org = !world.below(2) ? undefined
                    : own ? c.tags.organization_id || 'x'
                    : world.pick(OWNERS);
        let may = world.owned(user, org).includes(c);
        const base = org === undefined ? '' : '/both';
        const list = org === undefined ? '/connections' : '/both';
        const id = opaque(c);
        const what = `${user} (${org}) and ${c.integration}/${c.id}`;
        let answer;

        switch (world.below(7)) {

        case 0:
            answer = await world.ask('GET', `${list}?id=${id}`, user, org);
            break;

        case 1:
            answer = await world.ask('GET', `${base}/app?i=${c.integration}`
                                     + `&id=${id}`, user, org);
            break;

        case 2:
            answer = await world.ask('GET', `${base}/app?i=${c.integration}`,
                                     user, org);
            may = world.owned(user, org).some((one) =>
                one.integration === c.integration);
            break;

        case 3:
            answer = await world.ask('POST', list, user, org, {
                integration: c.integration, connection_id: c.id });

            /* It might be known there only, and be the caller's. */
            asked++;
            break;

        case 4:
            answer = await world.ask('POST', `${base}/reconnect`, user, org,
                                     { id });
            asked += may;
            break;

        case 5:
            answer = await world.ask('POST', list, user, org, { id });
            asked += may;
            break;

        default:
            answer = await world.ask('DELETE', `${list}?id=${id}`, user, org);
            asked += may;
            c.deleted = c.deleted || may;
        }

        /* One that is invalid is not passed on, but it is the caller's. */

        const status = answer.status === 409 ? 200 : answer.status;

        assert.strictEqual(status, may ? 200 : 404,
                           `${what}: ${answer.text}`);
    }

    assert.strictEqual((await world.nango.control('GET', 'requests')).count,
                       asked);
}


test('an owner that is none is nobody', async (t) => {
    const { nango, nginx } = await running(t, SERVER);
    const world = new World(nango, nginx, SEED);

    t.after(() => world.client.close());

    for (const user of OWNERS) {
        const known = { id: `c-${world.number}`, integration: 'github' };

        await world.webhook(known, 'creation', { end_user_id: user }, true);
    }

    const raw = (value) => new Promise((resolve, reject) => {
        const socket = require('node:net').connect(nginx.port, '127.0.0.1');
        let text = '';

        socket.on('data', (data) => { text += data; });
        socket.on('error', reject);
        socket.on('close', () => resolve(text));
        socket.write(Buffer.concat([
            Buffer.from('GET /connections HTTP/1.1\r\nHost: localhost\r\n'
                        + 'Connection: close\r\nX-User: '),
            value, Buffer.from('\r\n\r\n'),
        ]));
    });

    for (const value of REFUSED) {
        const bytes = value.charCodeAt(2) === 0xff
                      ? Buffer.from(value, 'latin1') : Buffer.from(value);

        assert.match(await raw(bytes), /^HTTP\/1\.1 400 [^]*"invalid_tag"/,
                     JSON.stringify(value));
    }

    assert.match(await raw(Buffer.from('42\0')), /^HTTP\/1\.1 400 /);
    assert.match(await raw(Buffer.from('')), /^HTTP\/1\.1 401 /);
    assert.match(await raw(Buffer.from('42\r\nX-User: 43')),
                 /^HTTP\/1\.1 (?:200|400)/);
    assert.strictEqual((await nango.control('GET', 'requests')).count, 0);
});


test('behind auth_basic, auth_request and satisfy any', async (t) => {
    const { nango, nginx } = await running(t, `
    location = /webhook { nango_webhook; }
    location = /backend {
        if ($http_x_token !~ "^token-of-(.*)$") { return 401; }
        set $who $1;
        add_header X-Who $who;
        return 204;
    }
    location = /auth {
        internal;
        proxy_pass              http://127.0.0.1:@PORT@/backend;
        proxy_pass_request_body off;
        proxy_set_header        Content-Length "";
    }
    location = /basic {
        auth_basic           app;
        auth_basic_user_file @DIR@/users;
        nango_owner end_user_id $remote_user;
        nango_connections;
    }
    location = /request {
        auth_request     /auth;
        auth_request_set $user $upstream_http_x_who;
        nango_owner end_user_id $user;
        nango_connections;
    }
    location = /any {
        satisfy any;
        deny all;
        auth_basic           app;
        auth_basic_user_file @DIR@/users;
        nango_owner end_user_id $remote_user;
        nango_connections;
    }
    location = /open {
        satisfy any;
        allow all;
        auth_request     /auth;
        auth_request_set $user $upstream_http_x_who;
        nango_owner end_user_id $user;
        nango_connections;
    }
`);
    const world = new World(nango, nginx, SEED);
    const basic = (text) => ({ Authorization:
        `Basic ${Buffer.from(text).toString('base64')}` });

    fs.writeFileSync(path.join(nginx.dir, 'users'),
                     'ann:{PLAIN}ann\nbob:{PLAIN}bob\n');
    t.after(() => world.client.close());

    for (const user of ['ann', 'bob']) {
        await world.webhook({ id: `of-${user}`, integration: 'github' },
                            'creation', { end_user_id: user }, true);
    }

    const ids = { ann: opaque({ id: 'of-ann', integration: 'github' }),
                  bob: opaque({ id: 'of-bob', integration: 'github' }) };

    for (const [url, headers, who] of [
        ['/basic', basic('ann:ann'), 'ann'],
        ['/basic', basic('bob:bob'), 'bob'],
        ['/basic', basic('ann:bob'), null],
        ['/basic', {}, null],
        ['/any', basic('ann:ann'), 'ann'],
        ['/any', basic('bob:ann'), null],
        ['/any', {}, null],
        ['/request', { 'X-Token': 'token-of-ann' }, 'ann'],
        ['/request', { 'X-Token': 'ann' }, null],
        ['/request', {}, null],
        ['/request', { 'X-Who': 'ann' }, null],
        ['/request', { 'X-Token': 'token-of-', 'X-Who': 'ann' }, null],
        ['/open', { 'X-Who': 'ann' }, null],
    ])
    {
        const mine = await once(nginx.port, 'GET', url, headers);

        assert.strictEqual(mine.status, who ? 200 : 401,
                           `${url} ${JSON.stringify(headers)}`);

        for (const name of ['ann', 'bob']) {
            const one = await once(nginx.port, 'GET', `${url}?id=${ids[name]}`,
                                   headers);
            const gone = await once(nginx.port, 'DELETE',
                                    `${url}?id=${ids[name]}&limit=0`, headers);

            assert.strictEqual(one.status, !who ? 401
                                           : who === name ? 200 : 404);
            assert.strictEqual(gone.status, who ? 400 : 401);
        }

        if (who) {
            assert.deepStrictEqual(mine.json.connections.map((c) => c.id),
                                   [ids[who]]);
        }
    }
});
