/*
 * One request of each kind, deliveries, a large body, a reload, the same again,
 * and a graceful end, on an nginx that shows faults: small enough for valgrind.
 * With NANGO_RELOADS, that many reloads under load besides.  What nginx has to
 * report is for t/sanitize/run to find.
 */

'use strict';

const assert = require('node:assert');
const { test } = require('node:test');

const { Backend } = require('../e2e/backend');
const { Client, hmac, once } = require('../e2e/client');
const { Follower } = require('../e2e/follow');
const { create, sleep, until } = require('../e2e/nginx');
const { createNango, API_KEY } = require('../sim/nango');

const KEY = 'signing-key-of-prod';
const LARGE = 300 * 1024;

/* Valgrind on a busy machine takes its time. */
const PATIENCE = 120000;


function http(sim, deliver) {
    return `
    nango_store @STORE@ size=64m;
    nango_environment prod {
        ${deliver || ''}
        api                 ${sim.url};
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:${API_KEY};
        webhook_signing_key data:${KEY};
        reconcile           off;
    }
    `;
}


const SERVER = `
    location = /webhook { nango_webhook; }
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_tag   plan $arg_plan;
        nango_session;
    }
    location = /fresh {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session;
    }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections;
    }
    location = /events {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_events;
    }
    location = /all {
        allow 127.0.0.1;
        nango_events all;
    }
    location = /callback { nango_oauth_callback; }
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_reconnect;
    }
    location = /catalog {
        nango_owner end_user_id $http_x_user;
        nango_catalog;
    }
    location = /needs {
        nango_owner   end_user_id $http_x_user;
        nango_require github credentials;
        add_header    X-Token $nango_credential;
        empty_gif;
    }
    location = /proxied {
        nango_owner   end_user_id $http_x_user;
        nango_require github proxy;
        proxy_pass    http://127.0.0.1:@PORT@/nothing;
    }
    location = /state  { nango_status; }
    location = /manage { nango_status manage; }
`;


function event(connection, size, more) {
    return JSON.stringify({
        from: 'nango', type: 'auth', operation: 'creation', success: true,
        connectionId: connection, provider: 'github',
        providerConfigKey: 'github', environment: 'DEV',
        tags: { end_user_id: 'ann' }, ...more,
        padding: 'x'.repeat(size),
    });
}


/* What they are answered: no path is thought to be taken that was not. */
const STATUSES = [200, 200, 200, 200, 200, 200, 200, 200, 401,
                  200, 200, 200, 400, 401, 502,
                  200, 200, 200, 200, 400,
                  200, 200, 200, 200, 404, 400, 200, 308, 404,
                  409, 200, 200, 404, 200, 404,
                  200, 200, 200, 200, 404, 200, 200, 409, 404];


async function eachKind(client, round) {
    const json = { 'Content-Type': 'application/json' };
    const user = { 'X-User': 'ann', ...json };
    const webhook = (body) => client.request('POST', '/webhook', {
        ...json, 'X-Nango-Hmac-Sha256': hmac(body, KEY) }, body);
    const seen = [];
    const see = async (answer) => { seen.push((await answer).status); };

    await see(webhook(event(`small-${round}`, 0)));
    await see(webhook(event(`small-${round}`, 0)));
    await see(webhook(event(`large-${round}`, LARGE)));
    await see(webhook(event(`gone-${round}`, 0)));
    await see(webhook(event(`gone-${round}`, 0, { operation: 'deletion' })));
    await see(webhook(event(`small-${round}`, 0, {
        operation: 'refresh', success: false,
        error: { type: 'refresh_token_error', description: 'revoked' },
    })));
    await see(webhook('{"type":"forward","from":"github","payload":[]}'));
    await see(webhook('not JSON'));
    await see(client.request('POST', '/webhook', {
        'X-Nango-Hmac-Sha256': hmac('other', KEY) }, 'forged'));

    await see(client.request('POST', '/session', user,
                             '{"integration":"github"}'));
    await see(client.request('POST', '/session', user,
                             '{"integration":"github"}'));
    await see(client.request('POST', '/fresh', user, ''));
    await see(client.request('POST', '/fresh', user, '[1'));
    await see(client.request('POST', '/fresh', json, ''));
    await see(client.request('POST', '/fresh', user,
                             '{"integration":"unknown"}'));

    const list = await client.request('GET', '/connections', user);
    const { id } = list.json.connections[0];

    seen.push(list.status);

    await see(client.request('GET', `/connections?id=${id}`, user));
    await see(client.request('GET', '/connections?limit=1&status=invalid'
                             + '&integration=github', user));
    await see(client.request('GET', '/connections?since=1', user));
    await see(client.request('GET', '/connections?limit=many', user));
    const page = await client.request('GET', '/all', {});
    const large = page.json.events.find((one) => one.body_format === 'file');

    seen.push(page.status);

    await see(client.request('GET', '/events?limit=2&type=auth', user));
    await see(client.request('GET', '/all?body=1', {}));
    await see(client.request('GET', `/all?body=${large.sequence}`, {}));
    await see(client.request('GET', '/events?body=999999', user));
    await see(client.request('GET', '/events?after=many', user));

    /* One that waits, and streams that are told and that read. */
    const streams = ['/events', '/all?after=0', '/all?after=1&type=auth'].map(
        (url) => new Follower(client.port, url, user));

    await until('streams', () => streams.every((one) => one.id),
                PATIENCE);

    const waits = once(client.port, 'GET',
                       `/events?after=${page.json.next}&wait=50`, user);

    const told = event(`small-${round}`, 0, { operation: 'refresh' });

    await client.request('POST', '/webhook', {
        'X-Nango-Hmac-Sha256': hmac(told, KEY) }, told);

    seen.push((await waits).status);

    await until('events', () => streams.every(
        (one) => one.sequences().at(-1) > page.json.next), PATIENCE);
    streams.forEach((one) => one.close());

    await see(client.request('GET', '/callback?code=1&state=2', {}));
    await see(client.request('GET', '/nothing', {}));

    await see(client.request('POST', '/reconnect', user,
                             '{"integration":"github"}'));
    await see(client.request('GET', '/catalog', user));

    /* One that Nango has as well. */

    const verify = `{"integration":"github","connection_id":"own-${round}"}`;

    await see(client.request('POST', '/connections', user, verify));
    await see(client.request('POST', '/connections', user,
                             verify.replace('own', 'none')));

    /* Its credentials are there; nango_require does not wait for it. */

    await until('it in the state', async () =>
        (await client.request('GET', '/connections', user)).json.connections
            .length === list.json.connections.length + 1, PATIENCE);

    await see(client.request('GET', '/needs', user));
    await see(client.request('GET', '/proxied', user));

    const act = (action) => client.request('POST', '/manage', json,
        `{"action":"${action}","environment":"prod","subscriber":"app"}`);

    for (const url of ['/state', '/state?format=prometheus',
                       '/manage?format=html',
                       '/manage?dead=1&environment=prod&subscriber=app',
                       '/manage?dead=1&environment=prod&subscriber=nobody'])
    {
        await see(client.request('GET', url, {}));
    }

    await see(act('redeliver'));
    await see(act('resume'));
    await see(act('forget'));
    await see(client.request('DELETE', '/connections?id=0', user));

    return [seen, list.json.connections.length];
}


test('each kind of request before and after a reload', { timeout: 5 * PATIENCE },
     async (t) =>
{
    const sim = await createNango({
        settings: { rate_limit: 100000 },
    }).listen();

    t.after(() => sim.close());

    /* Each third fails at first, large ones among them. */

    const backend = await Backend.create(t, {
        answer: ({ sequence, attempt }) => (sequence % 3 === 0 && attempt === 1
                                            ? 500 : 200),
    });
    const nginx = await create(t, {
        http: http(sim, `deliver app ${backend.url};
                         deliver none http://127.0.0.1:1/ max_age=1ms;`),
        server: SERVER, workers: 1,
    });

    await nginx.start();

    await sim.control('POST', 'state', { connections: [1, 2].map((n) => ({
        integration: 'github', connection_id: `own-${n}`,
        tags: { end_user_id: 'ann' },
        credentials: { type: 'OAUTH2', access_token: 'token' },
    })) });

    const delivered = () => until('deliveries', async () => {
        const { json } = await new Client(nginx.port).request('GET', '/state',
                                                              {});
        const app = json.subscribers.find((one) => one.name === 'app');

        return app.delivered > 0 && app.waiting === 0;
    }, PATIENCE);

    const [worker] = nginx.workers();
    let client = new Client(nginx.port);
    const [seen, count] = await eachKind(client, 1);

    assert.deepStrictEqual(seen, STATUSES);
    assert.strictEqual(count, 2);
    await delivered();

    nginx.kill(nginx.master, 'SIGHUP');
    await until('another worker', () => nginx.workers().some(
        (pid) => pid !== worker), PATIENCE);

    client.close();
    await until('the old worker to go', () => !nginx.workers().includes(worker),
                PATIENCE);

    client = new Client(nginx.port);

    assert.deepStrictEqual(await eachKind(client, 2), [seen, 5]);
    await delivered();

    /* What a worker that ends finds under way. */
    await sim.control('POST', 'faults', {
        add: { path: '/connect/sessions', delay_ms: 1000 },
    });

    const late = client.request('POST', '/fresh', { 'X-User': 'ann' }, '');

    await sleep(300);
    assert.ok(await nginx.stop(PATIENCE), 'nginx does not end');
    assert.strictEqual((await late).status, 200);
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});


/* Asks without a pause until told to stop; says how often it was answered. */
async function ask(nginx, name, load) {
    let client = new Client(nginx.port);
    let answered = 0;

    for (let n = 0; !load.over; n++) {
        const body = event(`${name}-${n % 50}`, n % 20 ? 0 : LARGE, { n });
        const user = { 'X-User': 'ann', 'Content-Type': 'application/json' };

        const requests = [
            ['POST', '/webhook', { 'X-Nango-Hmac-Sha256': hmac(body, KEY) },
             body],
            ['GET', '/connections?limit=10', user],
            ['POST', '/session', user, ''],
        ];

        for (const request of requests) {
            try {
                const { status } = await client.request(...request);

                assert.strictEqual(status, 200, request[1]);
                answered++;

            } catch (err) {
                /* The connection of a worker that ends. */
                if (!err.cut) {
                    throw err;
                }

                client.close();
                client = new Client(nginx.port);
            }
        }
    }

    client.close();

    return answered;
}


test('reloads under load', {
    timeout: 5 * PATIENCE, skip: !process.env.NANGO_RELOADS && 'not asked for',
}, async (t) => {
    const sim = await createNango({
        settings: { rate_limit: 1000000 },
    }).listen();

    t.after(() => sim.close());

    const nginx = await create(t, { http: http(sim), server: SERVER });

    await nginx.start();

    const load = { over: false };
    const clients = ['a', 'b', 'c', 'd'].map((name) => ask(nginx, name, load));

    for (let i = 0; i < Number(process.env.NANGO_RELOADS); i++) {
        const old = nginx.workers();

        await sleep(500);
        nginx.kill(nginx.master, 'SIGHUP');
        await until('new workers', () => nginx.workers().filter(
            (pid) => !old.includes(pid)).length === 2, PATIENCE);
    }

    await sleep(500);
    load.over = true;

    const answered = await Promise.all(clients);

    t.diagnostic(`${answered} answered`);
    assert.ok(answered.every((n) => n > 0));
    assert.ok(await nginx.stop(PATIENCE), 'nginx does not end');
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});
