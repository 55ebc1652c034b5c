/*
 * No memory: each allocation of the worker fails in turn, of the event loop
 * and of all threads, for a request of each kind.  Whoever is answered is told
 * the truth, whoever cannot be answered is cut off, and the next request goes
 * well.  Then the same while nginx starts, reads its configuration, reloads;
 * and with descriptors and threads.
 */

'use strict';

const assert = require('node:assert');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const nodeTest = require('node:test');

const { Backend } = require('./backend');
const { hmac, once } = require('./client');
const { EVENTS, KEY, bodies, creation, settings } = require('./edge');
const { create, sleep, until } = require('./nginx');
const { Starve, DESCRIPTORS, THREADS, AT_CONF, AT_CURL } = require('./starve');

const LONG = Boolean(process.env.NANGO_LONG);
const NGINX = process.env.NGINX || '/usr/sbin/nginx';

/* Pools so small that nearly each piece of memory is one of its own. */
const TINY = `
    connection_pool_size 112;
    request_pool_size    112;
    large_client_header_buffers 4 1k;
`;


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: LONG ? 3600000 : 400000 }, fn);
}


function send(nginx, request) {
    const { method, url, headers, body } = request;

    return once(nginx.port, method || 'GET', url, headers, body)
        .catch((err) => {
            if (!err.cut) {
                throw err;
            }

            return { status: 0, received: err.received };
        });
}


function told(body, key) {
    return { method: 'POST', url: '/webhook', body,
             headers: { 'X-Nango-Hmac-Sha256': hmac(body, key || KEY) } };
}


function webhook(size, key, tags) {
    let n = 0;

    return () => told(creation(`${size}-${++n}`, size, tags && { tags }), key);
}


function session(user, more) {
    return () => ({
        method: 'POST', url: '/session', headers: { 'X-User': user }, ...more,
    });
}


function list(query, user) {
    return () => ({ url: `/connections${query}`,
                    headers: { 'X-User': user || 'few' } });
}


function events(query, url) {
    return () => ({ url: `${url || '/events'}${query}`,
                    headers: { 'X-User': 'few' } });
}


/*
 * What is asked, and what is answered where nothing fails.  What does not say
 * that it changes is the same each time.
 */
const KINDS = {
    'a webhook': { ask: webhook(0), status: 200, stored: true },
    'a webhook in a buffer of its own': { ask: webhook(100000), status: 200,
                                          stored: true },
    'a webhook in a file': { ask: webhook(200000), status: 200, stored: true },
    'a duplicate': {
        ask: () => webhook(0)(),
        status: 200,
        first: true,
        same: (json) => json.duplicate,
    },
    'a forged webhook': { ask: webhook(0, 'other'), status: 401 },
    'a forged webhook in a file': { ask: webhook(200000, 'other'),
                                    status: 401 },
    'a webhook without a signature': {
        ask: () => ({ method: 'POST', url: '/webhook', body: '{}' }),
        status: 401,
    },
    /* 502: libcurl says the same of headers that are too long. */

    'a session': { ask: session('somebody'), status: 200, else: [502],
                   same: (json) => json },
    'a session for some integrations': {
        ask: session('somebody', {
            headers: { 'X-User': 'somebody',
                       'Content-Type': 'application/json' },
            url: '/session-tags',
            body: '{"integrations":["github","slack"]}',
        }),
        status: 200,
        else: [502],
        same: (json) => json,
    },
    'a session that is used again': {
        ask: session('again', { url: '/session-reuse' }),
        status: 200,
        first: true,
        same: (json) => json,
    },
    'a session that Nango refuses': { ask: session('refuse'), status: 502 },
    'a session without an owner': { ask: session(''), status: 401 },
    'a session for an integration that is not allowed': {
        ask: session('somebody', {
            headers: { 'X-User': 'somebody',
                       'Content-Type': 'application/json' },
            url: '/session-tags',
            body: '{"integrations":["other"]}',
        }),
        status: 403,
    },
    'a list': { ask: list(''), status: 200, first: true,
                same: (json) => [json.connections, json.next] },
    'a page of a list': { ask: list('?limit=1&since=1'), status: 200,
                          same: (json) => [json.connections, json.next] },
    'an empty list': { ask: list('', 'nobody'), status: 200,
                       same: (json) => [json.connections, json.next] },
    'an unknown connection': { ask: list(`?id=${'0'.repeat(32)}`),
                               status: 404 },
    'a list with a wrong limit': { ask: list('?limit=x'), status: 400 },
    'a page of events': { ask: events('?after=0&limit=2'), status: 200,
                          same: (json) => [json.events, json.next] },
    'a body of its own': { ask: events('?body=1', '/all'), status: 200,
                           same: (json) => json },
    'a large body of its own': {
        ask: webhook(200000),
        status: 200,
        first: true,
        then: ({ json }) => events(`?body=${json.sequence}`, '/all')(),
        same: (json, headers) => headers['content-length'],
    },
    'an event that is not there': { ask: events('?body=9999999', '/all'),
                                    status: 404 },
    'a page from the future': { ask: events('?after=9999999'), status: 409 },
    'oauth/callback': {
        ask: () => ({ url: '/oauth/callback?code=1&state=2' }),
        status: 308,
        same: (json, headers) => headers.location,
    },
    'a webhook by GET': { ask: () => ({ url: '/webhook' }), status: 405 },
    'a list by PUT': {
        ask: () => ({ method: 'PUT', url: '/connections', body: 'x' }),
        status: 405,
    },
    'an origin that is denied': {
        ask: session('somebody', {
            headers: { 'X-User': 'somebody', Origin: 'https://evil.example' },
        }),
        status: 403,
    },
};


function check(connection, user) {
    return () => ({
        method: 'POST', url: '/connections',
        headers: { 'X-User': user || 'one',
                   'Content-Type': 'application/json' },
        body: JSON.stringify({ integration: 'github',
                               connection_id: connection }),
    });
}


let fresh = 0;

/* Those about one connection. */
const OF_ONE = {
    'a reconnection': {
        ask: () => ({
            method: 'POST', url: '/reconnect',
            headers: { 'X-User': 'one', 'Content-Type': 'application/json' },
            body: '{"integration":"github"}',
        }),
        status: 200,
        else: [502],
        same: (json) => json,
    },
    'a check': { ask: check('400-1'), status: 200, else: [502],
                 recorded: true, same: (json) => json.connection_id },
    'a check of one that nobody knew': {
        ask: () => check(`fresh-${++fresh}`, 'many')(),
        status: 200,
        else: [502],
        recorded: true,
        same: (json) => json.status,
    },
    'a check of one that is not there': {
        ask: check('gone'), status: 404, else: [502],
    },

    'a deletion': {
        make: async (nginx) => {
            const user = `user-${++fresh}`;

            await good(nginx, KINDS['a webhook'],
                       told(creation(user, 0, { tags: {
                           end_user_id: user } })));

            return { method: 'DELETE', headers: { 'X-User': user },
                     url: '/connections?integration=github' };
        },
        status: 200,
        else: [502],
        recorded: true,
        same: (json) => json,
    },
    'a list of integrations': {
        ask: () => ({ url: '/catalog', headers: { 'X-User': 'one' } }),
        status: 200,
        else: [502],
        same: (json) => json,
    },
    'what needs a connection': {
        ask: () => ({ url: '/needs', headers: { 'X-User': 'one' } }),
        status: 200,
        same: (json, headers) => headers['x-connection'],
    },
    'what needs a connection that is not there': {
        ask: () => ({ url: '/needs', headers: { 'X-User': 'nobody' } }),
        status: 404,
    },
    'what needs credentials that it has': {
        ask: () => ({ url: '/credentials', headers: { 'X-User': 'one' } }),
        status: 200,
        first: true,
        same: (json, headers) => headers['x-token'],
    },

    /* Whatever is heard of a connection, they are asked for anew. */
    'what needs credentials': {
        make: async (nginx) => {
            await good(nginx, KINDS['a webhook'],
                       told(creation('400-1', 400 + ++fresh,
                                     { tags: { end_user_id: 'one' } })));
            await good(nginx, KINDS['a list'], list('', 'one')());

            return { url: '/credentials', headers: { 'X-User': 'one' } };
        },
        status: 200,
        recorded: true,
        else: [502],
        same: (json, headers) => headers['x-token'],
    },
    'what goes to a proxy': {
        ask: () => ({ url: '/proxied', headers: { 'X-User': 'one',
                                                  'Base-Url-Override': 'x' } }),
        status: 200,
        else: [502],
    },
};


function manage(query) {
    return () => ({ url: `/manage?subscriber=app&environment=prod&${query}` });
}


function act(action) {
    return () => ({
        method: 'POST', url: '/manage',
        headers: { 'Content-Type': 'application/json' },
        body: `{"action":"${action}","environment":"prod",`
              + '"subscriber":"app"}',
    });
}


/* The names of all members, whatever they are. */
function names(json) {
    return JSON.stringify(json, (name, value) => (
        typeof value === 'object' && name !== 'trouble' ? value : null));
}


/* Those of operators. */
const OF_STATUS = {
    'counts': { ask: () => ({ url: '/manage' }), status: 200, same: names },

    /* What is the store's is left out, if it says that it cannot be read. */
    'metrics': {
        ask: () => ({ url: '/state?format=prometheus' }), status: 200,
        less: (text) => /^nango_store_open 0$/m.test(text),
        same: (json, headers, text) => text.replace(/ \d+$/gm, ''),
    },
    'a page': {
        ask: () => ({ url: '/manage?format=html' }), status: 200,
        same: (json, headers, text) => text.split('<tr').length,
    },
    'dead events': { ask: manage('dead=1&limit=3'), status: 200,
                     same: (json) => json },
    'waiting events': { ask: manage('waiting=1'), status: 200,
                        same: (json) => json },
    'dead events of nobody': {
        ask: () => ({ url: '/manage?subscriber=none&dead=1' }), status: 404,
    },
    'dead events that are delivered again': {
        ask: act('redeliver'), status: 200, recorded: true,
        same: (json) => json.more,
    },
    'nobody is parked': { ask: act('resume'), status: 200, recorded: true,
                          same: (json) => json.success },
    'one that cannot be forgotten': { ask: act('forget'), status: 409 },
};


/* What was asked of Nango, and is not what anybody would ask. */
const nonsense = [];


/* What Nango says to all that is asked of it; credentials are never kept. */
function say(method, url, body) {
    const { pathname, search } = new URL(url, 'http://nango');
    const id = pathname.split('/')[2];

    if (pathname === '/integrations') {
        return [200, { data: ['github', 'slack', 'jira'].map((one) => ({
            unique_key: one, provider: one, display_name: one, logo: 'x',
        })) }];
    }

    if (/^\/connections?\//.test(pathname)) {

        if (search === '') {
            nonsense.push(`${method} ${url}`);
        }

        if (id === 'gone') {
            return [404, { error: { code: 'not_found', message: 'gone' } }];
        }

        return [200, method === 'DELETE' ? { success: true } : {
            connection_id: id, provider_config_key: 'github',
            provider: 'github', errors: [], end_user: null,
            tags: { end_user_id: /^fresh/.test(id) ? 'many' : 'one' },
            credentials: {
                type: 'OAUTH2', access_token: 'token-of-one',
                expires_at: new Date(Date.now() + 30000).toISOString(),
            },
        }];
    }

    if (body.includes('"refuse"')) {
        return [401, { error: { code: 'unknown', message: 'no such key' } }];
    }

    return [201, { data: {
        token: `nango_connect_session_${'ab'.repeat(32)}`,
        connect_link: 'https://connect.example.com/?session_token=x',
        expires_at: '2030-01-01T00:00:00.000Z',
    } }];
}


/* Resolves to its port. */
async function nango(t) {
    const server = http.createServer((req, res) => {
        const parts = [];

        req.on('data', (part) => parts.push(part));
        req.on('end', () => {
            const [status, json] = say(req.method, req.url,
                                       Buffer.concat(parts));

            res.writeHead(status, { 'Content-Type': 'application/json' });
            res.end(JSON.stringify(json));
        });
    });

    await new Promise((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
    });

    t.after(() => {
        server.close();
        server.closeAllConnections();
    });

    return server.address().port;
}


async function start(t, more) {
    const api = await nango(t);
    const starve = new Starve(t);
    const options = settings(api, {
        http: TINY + (more && more.http || ''),
        server: `
    location = /session-tags {
        nango_owner         end_user_id $http_x_user;
        nango_tag           plan $arg_plan;
        nango_integrations  github slack;
        nango_session_reuse off;
        nango_session prod;
    }
    location = /session-reuse {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse 20m;
        nango_session prod;
    }
    ${EVENTS}
    location = /oauth/callback { nango_oauth_callback prod; }
    location = /reconnect {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_reconnect prod;
    }
    location = /catalog {
        nango_owner end_user_id $http_x_user;
        nango_catalog prod;
    }
    location = /needs {
        nango_owner   end_user_id $http_x_user;
        nango_require prod github;
        add_header    X-Connection $nango_connection_id;
        empty_gif;
    }
    location = /credentials {
        nango_owner   end_user_id $http_x_user;
        nango_require prod github credentials;
        add_header    X-Token $nango_credential;
        empty_gif;
    }
    location = /proxied {
        nango_owner   end_user_id $http_x_user;
        nango_require prod github proxy;
        proxy_pass    http://127.0.0.1:@PORT@/empty;
    }
    location = /state  { nango_status; }
    location = /manage { nango_status manage; }`,
    });

    options.http = options.http.replace('nango_environment prod {',
        (line) => `${line}\n${more && more.deliver || ''}`);

    /* OpenSSL keeps what it knows of errors for each thread. */

    return { starve, options: {
        ...options,
        main: `${options.main} thread_pool default threads=1;`,
        workers: 1,
    } };
}


async function starving(t, more) {
    const { starve, options } = await start(t, more);
    const nginx = await create(t, options);

    await nginx.start(starve.env);
    await until('the worker', () => nginx.workers().length === 1);

    starve.of(nginx.workers()[0]);

    return { nginx, starve };
}


/* Since the answer comes before the fold, and has allocations as well. */
async function settle(nginx) {
    const seen = async () => {
        const { json } = await send(nginx, list('?limit=1')());

        return json && json.sequence;
    };

    for (let before; ; await sleep(10)) {
        const now = await seen();

        if (now !== undefined && now === before) {
            return;
        }

        before = now;
    }
}


/* Blocks that the worker has while nobody asks for anything. */
async function quiet(starve) {
    const seen = [];

    for (let i = 0; i < 8; i++) {
        await sleep(10);
        seen.push(starve.live);
    }

    return Math.min(...seen);
}


async function good(nginx, kind, request) {
    const answer = await send(nginx, request);

    assert.strictEqual(answer.status, kind.status, answer.text);

    return answer;
}


/*
 * Each allocation fails, or all from there on.  What waits for the state takes
 * its time: of these some are left out, others each time.
 */
async function series(nginx, starve, kind, acknowledged, on) {
    const step = kind.recorded && !LONG ? 8 : 1;
    const statuses = {};
    const make = () => (kind.make ? kind.make(nginx) : first || kind.ask());
    let first;
    let n = kind.recorded ? fresh++ % step : 0;

    if (kind.first) {
        first = kind.ask();

        const answer = await good(nginx, kind, first);

        if (kind.then) {
            first = kind.then(answer);
        }

        await settle(nginx);
    }

    const model = kind.same && await good(nginx, kind, await make());

    for (;; n += step) {
        const request = await make();

        starve.arm(n, { on });

        const answer = await send(nginx, request);

        if (kind.stored && answer.status === 200 && !on) {
            await sleep(2);
        }

        const refused = starve.feed();

        statuses[answer.status] = (statuses[answer.status] || 0) + 1;

        if (answer.status === kind.status) {

            if (kind.same && !(kind.less && kind.less(answer.text))) {
                const [is, was] = [answer, model].map(
                    ({ json, headers, text }) => kind.same(json, headers,
                                                           text));

                assert.deepStrictEqual(is, was, `allocation ${n}`);
            }

            if (kind.stored) {
                acknowledged.set(answer.json.sequence, request.body);
            }

        } else if (answer.status === 0) {
            assert.ok(refused, `allocation ${n}: cut for nothing`);

        } else {
            assert.ok([500, 503, ...kind.else || []].includes(answer.status),
                      `allocation ${n}: ${answer.status} ${answer.text}`);
            assert.ok(refused, `allocation ${n}: ${answer.text} for nothing`);
        }

        if (!refused) {
            assert.strictEqual(answer.status, kind.status);
            return [n, JSON.stringify(statuses)];
        }

        /* The store may have to be opened again first. */

        await until(`allocation ${n} to be over`, async () => {
            const next = await make();
            const { status, json } = await send(nginx, next);

            if (kind.stored && status === 200) {
                acknowledged.set(json.sequence, next.body);
            }

            return status === kind.status;
        });
    }
}


async function calm(nginx, workers) {
    assert.deepStrictEqual(nginx.workers(), workers);
    assert.strictEqual((await send(nginx, { url: '/plain' })).status, 200);

    /* A worker that was killed by a signal, or gave up. */
    assert.doesNotMatch(nginx.log(), /exited (on signal|with (fatal )?code)/);
}


async function few(nginx) {
    for (let i = 0; i < 3; i++) {
        await good(nginx, KINDS['a webhook'],
                   webhook(300 + i, KEY, { end_user_id: 'few' })());
    }
}


/*
 * What was acknowledged is left in "acknowledged".  The first time fills
 * caches.  What is stored makes LMDB remember a page now and then; all others
 * leave nothing, however often.
 */
async function each(t, { nginx, starve }, kinds, acknowledged) {
    const workers = nginx.workers();

    for (const [name, kind] of Object.entries(kinds)) {
        const live = [];
        const said = [];
        const more = kind.stored || kind.recorded ? 8 : 0;

        do {
            said.push(await series(nginx, starve, kind, acknowledged));
            await settle(nginx);
            live.push(await quiet(starve));
            assert.ok(live.length < 5, `${name}: ${live} blocks`);
        } while (live.length < 2 || live.at(-1) - live.at(-2) > more);

        await calm(nginx, workers);
        t.diagnostic(`${name}: ${said.at(-1)}`);
    }

    if (LONG) {
        for (const kind of Object.values(kinds)) {
            await series(nginx, starve, kind, acknowledged, true);
            await calm(nginx, workers);
        }
    }
}


test('each allocation fails once, for each kind of request', async (t) => {
    const read = bodies(t);
    const { nginx, starve } = await starving(t);
    const acknowledged = new Map();

    await few(nginx);
    await each(t, { nginx, starve }, KINDS, acknowledged);

    const events = new Map(read(nginx).map((event) => [event.sequence,
                                                       event.bytes]));

    assert.ok(acknowledged.size > 100);

    for (const [sequence, body] of acknowledged) {
        assert.ok(events.has(sequence), `${sequence} was acknowledged`);
        assert.ok(events.get(sequence).equals(body));
    }

    assert.ok(await nginx.stop());
});


test('each allocation fails once, for what is asked of one connection',
     async (t) =>
{
    const both = await starving(t);

    await good(both.nginx, KINDS['a webhook'],
               webhook(400, KEY, { end_user_id: 'one' })());
    await each(t, both, OF_ONE);
    assert.deepStrictEqual(nonsense, []);
    assert.ok(await both.nginx.stop());
});


test('each allocation fails once, for what operators ask', async (t) => {
    const backend = await Backend.create(t, { answer: () => 500 });
    const both = await starving(t, {
        deliver: `deliver app ${backend.url} max_age=1ms;`,
    });

    await few(both.nginx);
    await until('dead ones', async () => ((await send(both.nginx,
        manage('dead=1')())).json.dead || []).length === 3);
    await each(t, both, OF_STATUS);
    assert.ok(await both.nginx.stop());
});


/* Which is kept then: each environment asks for it once. */

test('a list of integrations is whole, or is not kept', async (t) => {
    const many = Array.from({ length: LONG ? 240 : 60 }, (_, i) => `env-${i}`);
    const { starve, options } = await start(t);
    const nginx = await create(t, options);
    const [, prod] = /(nango_environment prod \{[^}]*\})/.exec(options.http);
    let whole = 0;

    nginx.configure({
        http: options.http + many.map((env) => prod.replace('prod', env))
            .join(''),
        server: many.map((env) => `location = /${env} {
            nango_owner   end_user_id $http_x_user;
            nango_catalog ${env};
        }`).join(''),
    });
    await nginx.start(starve.env);
    await until('the worker', () => nginx.workers().length === 1);
    starve.of(nginx.workers()[0]);

    const ask = (env) => send(nginx, { url: `/${env}`,
                                       headers: { 'X-User': 'one' } });

    await until('the store', async () => (await ask('env-0')).status === 200);

    const model = (await ask('env-0')).json;

    assert.strictEqual(model.integrations.length, 3);

    for (const [i, env] of many.entries()) {
        starve.arm(LONG ? i : 40 + 2 * i);

        const one = await ask(env);

        starve.feed();

        if (one.status === 200) {
            assert.deepStrictEqual(one.json, model, env);
            whole++;
        }
    }

    /* What was got is kept, and nothing else is. */

    for (const env of many) {
        const answer = await until(env, async () => {
            const next = await ask(env);

            return next.status === 200 && next;
        });

        assert.deepStrictEqual(answer.json, model, env);
    }

    t.diagnostic(`${whole} of ${many.length} were whole at once`);
    assert.doesNotMatch(nginx.log(), /exited on signal/);
    assert.ok(await nginx.stop());
});


/* A stream as long as it lasts: {status, text, over} */
function follow(nginx, after) {
    const one = { status: 0, text: '', over: false };
    const end = () => { one.over = true; };

    one.request = http.get({
        host: '127.0.0.1', port: nginx.port, path: '/events', agent: false,
        headers: { Accept: 'text/event-stream', 'X-User': 'few',
                   'Last-Event-ID': String(after) },
    }, (res) => {
        one.status = res.statusCode;
        res.setEncoding('utf8');
        res.on('data', (data) => { one.text += data; });
        res.on('error', end);
        res.on('close', end);
    });

    one.request.on('error', end);

    return one;
}


function sequences(text) {
    return [...text.matchAll(/^id: \w+:\d+\nevent: .*\ndata: .*\n\n/gm)]
        .map(([block]) => Number(/"sequence":(\d+)/.exec(block)[1]));
}


test('each allocation fails once while a stream goes on', async (t) => {
    const { nginx, starve } = await starving(t);
    const workers = nginx.workers();
    const ask = webhook(300, KEY, { end_user_id: 'few' });
    const stored = async () => (await good(nginx, KINDS['a webhook'], ask()))
        .json.sequence;
    const live = [];
    let after = 0;
    let whole = 0;

    for (let n = 0, refused = 1; refused || n < 10 || whole <= 5; n++) {

        /* Some that it has to read, and some that it is told of. */

        if (n % 100 === 0) {
            after = await stored();
        }

        const last = await stored();

        starve.arm(n);

        const one = follow(nginx, after);

        await until('the beginning', () => one.over
                    || one.text.includes(`"sequence":${last},`));
        await send(nginx, ask());

        refused = starve.feed();

        let end;

        await until('memory', async () => {
            const answer = await send(nginx, ask());

            end = answer.json && answer.json.sequence;

            return answer.status === 200;
        });
        await until('the end', () => one.over
                    || one.text.includes(`"sequence":${end},`));

        const { json } = await good(nginx, { status: 200 },
                                    events(`?after=${after}&limit=1000`)());
        const seen = sequences(one.text);
        const all = json.events.map((event) => event.sequence);

        /* Whatever it came to, nothing is missing or out of order. */
        assert.deepStrictEqual(seen, all.slice(0, seen.length), `${n}`);
        assert.ok([0, 200, 500, 503].includes(one.status), `${one.status}`);

        if (one.over) {
            assert.ok(refused, `allocation ${n}: it ended for nothing`);
        } else {
            assert.ok(seen.length >= 2);
            whole++;
        }

        one.request.destroy();
        await calm(nginx, workers);
    }

    assert.ok(whole > 5);

    /* Those that ended left nothing. */

    for (let i = 0; i < 3; i++) {
        await stored();
        await settle(nginx);
        live.push(await quiet(starve));
    }

    for (let i = 0; i < 20; i++) {
        const one = follow(nginx, after);

        await until('the stream', () => sequences(one.text).length > 1);

        const last = await stored();

        await until('the event', () =>
            one.text.includes(`"sequence":${last},`));
        one.request.destroy();
    }

    await sleep(100);
    await settle(nginx);
    live.push(await quiet(starve));
    assert.ok(live.at(-1) - live.at(-2) <= 8, `${live} blocks`);
    t.diagnostic(`${whole} streams went on, ${live}`);
    assert.ok(await nginx.stop());
});


/*
 * From where our part of a worker's start begins: whatever is refused to it,
 * the others' sites are there, and so is the store as soon as it can be.
 */
async function starts(t, what, step, most) {
    const { starve, options } = await start(t);
    const nginx = await create(t, options);
    let n = 0;
    let unstarted = 0;

    for (; n < most; n += step) {
        nginx.configure({});
        starve.of(-1);
        starve.arm(n, { what, from: AT_CURL });

        await nginx.start(starve.env);

        const ready = async () => {
            const { status } = await send(nginx, KINDS['a webhook'].ask());

            assert.ok([0, 200, 500, 503].includes(status),
                      `${what} ${n}: ${status}`);

            return status === 200;
        };

        /* One of these may be refused what it needs, and not all of them. */

        const plain = [];

        for (let i = 0; i < 3; i++) {
            plain.push((await send(nginx, { url: '/plain' })).status);
        }

        assert.ok(plain.filter((status) => status === 200).length >= 2,
                  `${what} ${n}: ${plain}`);

        await ready();

        const refused = starve.feed();

        /* A worker without its thread says so, and answers 503. */

        if (/could not be started in this worker|nothing can be/
            .test(nginx.log()))
        {
            unstarted++;
            assert.strictEqual(await ready(), /nothing can be/
                .test(nginx.log()));
            assert.strictEqual((await send(nginx, { url: '/plain' })).status,
                               200);

        } else {
            await until(`the store, ${what} ${n}`, ready);
        }

        assert.doesNotMatch(nginx.log(),
                            /exited (on signal|with (fatal )?code)/);
        assert.ok(await nginx.stop());
        fs.truncateSync(path.join(nginx.dir, 'error.log'));

        if (!refused) {
            break;
        }
    }

    t.diagnostic(`${n}, ${unstarted} of them without a store or Nango`);

    return n;
}


test('a worker starts without descriptors', async (t) => {
    assert.ok(await starts(t, DESCRIPTORS, 1, 100) > 3);
});


test('a worker starts without threads', async (t) => {
    assert.ok(await starts(t, THREADS, 1, 100) >= 1);
});


test('a worker starts without memory', async (t) => {
    assert.ok(await starts(t, 0, LONG ? 1 : 41, 4000) > 10);
});


/*
 * A clean error, or none where it could be done without.  From the block "http"
 * on: before that is getpwnam(), in which glibc does not survive it.
 */
test('a configuration is read without memory', async (t) => {
    const { starve, options } = await start(t);
    const nginx = await create(t, options);
    let failed = 0;
    let n = 0;

    fs.writeFileSync(path.join(nginx.dir, 'starve.conf'), '');
    nginx.configure({ http: `include @DIR@/starve.conf;\n${options.http}` });

    for (; n < 20000; n += LONG ? 1 : 11) {
        starve.of(0);
        starve.arm(n, { from: AT_CONF });

        const { status, signal, stderr } = spawnSync(NGINX, ['-t', '-p',
            nginx.dir, '-c', `${nginx.dir}/nginx.conf`, '-e',
            `${nginx.dir}/error.log`], {
            env: { ...process.env, ...starve.env }, encoding: 'utf8',
        });

        const refused = starve.feed();

        /* libgnutls, which libcurl brings, does not end well without. */

        if (/ test is successful/.test(stderr)) {

            if (!refused) {
                break;
            }

            continue;
        }

        assert.strictEqual(signal, null, `allocation ${n}: ${stderr}`);
        assert.strictEqual(status, 1, `allocation ${n}`);
        assert.ok(refused, stderr);
        assert.match(stderr, /test failed|emerg|alert/);
        failed++;
    }

    t.diagnostic(`${n}, ${failed} of them failed`);
    assert.ok(failed > 4);
});


test('a reload without memory leaves the old workers', async (t) => {
    const { nginx, starve } = await starving(t);
    const ask = KINDS['a webhook'];
    let kept = 0;
    let n = 0;

    for (; n < 20000; n += LONG ? 1 : 3) {
        const [old] = nginx.workers();
        const before = nginx.log().length;

        starve.of(nginx.master);
        starve.arm(n);

        nginx.kill(nginx.master, 'SIGHUP');

        /* Either way it says what came of it. */

        const lines = () => nginx.log().slice(before);

        await until(`reload ${n}`, () => /\[emerg\]|start worker process /
            .test(lines()));

        const refused = starve.feed();

        /* It may have said so of what it can do without, and goes on. */

        nginx.kill(nginx.master, 'SIGUSR1');
        await until('the end of the reload', () =>
            /reopening logs/.test(lines()));

        if (/start worker process /.test(lines())) {
            await until('the old one to go', () => !nginx.alive(old));
        } else {
            kept++;
            assert.ok(refused);
            assert.deepStrictEqual(nginx.workers(), [old]);
        }

        await until('the store', async () =>
            (await send(nginx, ask.ask())).status === 200);

        if (!refused) {
            break;
        }
    }

    t.diagnostic(`${n}, ${kept} of them kept the old worker`);
    assert.ok(kept > 2);
    assert.doesNotMatch(nginx.log(), /exited on signal/);
});
