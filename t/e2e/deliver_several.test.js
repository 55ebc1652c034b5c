/*
 * Several subscribers, connections and environments: each gets what it wants
 * in its own time, whatever the others do, and over reloads.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const nodeTest = require('node:test');

const { Nango } = require('@nangohq/node');
const sim = require('../sim/helper');
const { API_KEY } = require('../sim/nango');
const { Backend } = require('./backend');
const { once } = require('./client');
const { assertOrder, config, creation, environment, KEY, laneOf, ledgers, post,
        settled, sync } = require('./deliver');
const { compile, reader } = require('./model');
const { create, until } = require('./nginx');

const OTHER = { path: '/other', key: 'signing-key-of-other' };


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 90000 }, fn);
}


/* Another environment with these lines, and where its webhooks go. */
function other(lines, more) {
    return { environments: environment('other', OTHER.key, lines),
             locations: 'location = /other { nango_webhook other; }', ...more };
}


/* The same environment, with a Nango at this address that is compared with. */
function asking(text, url) {
    return text.replace('reconcile           off;', 'reconcile 1s;')
        .replace(/api {17}http:[^;]*;/, `api ${url};`)
        .replace(/api_key .*;/, `api_key data:${API_KEY};`);
}


function sequences(backend) {
    return [...backend.accepted].sort((a, b) => a - b);
}


/* Until the store knows so many; there may be none yet. */
function known(read, nginx, n) {
    return until('them to be known', () => {
        try {
            return read(nginx.store, 'ledgers').subscribers.length === n;
        } catch (err) {
            return false;
        }
    });
}


function assertAlive(nginx) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.doesNotMatch(nginx.log(), /exited on signal/);
}


/* As a backend with Nango's SDK sees it. */
function assertVerified(backend, key) {
    const nango = new Nango({ host: 'http://127.0.0.1:1', apiKey: API_KEY,
                              webhookSigningKey: key });

    assert.ok(backend.got.length);

    for (const one of backend.got) {
        assert.ok(nango.verifyIncomingWebhookRequest(one.body.toString(),
                                                     one.headers));
    }
}


test('who wants which events, of which environment', async (t) => {
    const read = reader(t);
    const names = ['all', 'auth', 'rest', 'start', 'theirs'];
    const list = await Promise.all(names.map(() => Backend.create(t)));
    const [all, auth, rest, start, theirs] = list;
    const nginx = await create(t, config('', other('')));

    await nginx.start();

    const early = await post(nginx, sync('early'));

    await until('the fold', () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.applied === meta.last;
    });

    nginx.configure(config(`
        deliver all   ${all.url};
        deliver auth  ${auth.url} types=auth;
        deliver rest  ${rest.url} types=sync,async_action,forward,other;
        deliver start ${start.url} from=start;`,
    other(`deliver all ${theirs.url};`)));

    assert.ok(await nginx.stop());
    await nginx.start();
    await known(read, nginx, 5);

    const made = await post(nginx, creation('c-1', 'ann'));
    const foreign = await post(nginx, creation('c-1', 'bob'), {}, OTHER);
    const more = [
        await post(nginx, sync('c-1')),
        await post(nginx, sync('c-1', { type: 'async_action' })),
        await post(nginx, sync('c-1', { type: 'forward', payload: 1 })),
        await post(nginx, sync('c-1', { type: 'brand_new' })),
        await post(nginx, '{"action":"opened"}'),
        await post(nginx, 'null'),
        await post(nginx, 'no JSON'),
    ];
    const latest = await post(nginx, sync('c-1'), {}, OTHER);

    await until('all of it', () => start.accepted.length === 9
        && all.accepted.length === 8 && auth.accepted.length === 1
        && rest.accepted.length === 7 && theirs.accepted.length === 2);

    assert.deepStrictEqual(sequences(all), [made, ...more]);
    assert.deepStrictEqual(sequences(auth), [made]);
    assert.deepStrictEqual(sequences(rest), more);
    assert.deepStrictEqual(sequences(start), [early, made, ...more]);
    assert.deepStrictEqual(sequences(theirs), [foreign, latest]);

    list.forEach((one) => assertOrder(one.got.filter(({ body }) =>
        body[0] === 0x7b)));

    /* Whose they are, each in its environment. */

    const owners = (backend) => new Set(backend.got
        .filter((one) => one.sequence !== early && laneOf2(one) === 'c-1')
        .map((one) => one.headers['x-nango-edge-owner']));

    assert.deepStrictEqual(owners(all), new Set(['end_user_id=ann']));
    assert.deepStrictEqual(owners(theirs), new Set(['end_user_id=bob']));
    assert.ok(all.got.every(({ headers }) =>
        headers['x-nango-edge-environment'] === 'prod'));
    assert.ok(theirs.got.every(({ headers }) =>
        headers['x-nango-edge-environment'] === 'other'));

    [all, auth, rest, start].forEach((one) => assertVerified(one, KEY));
    assertVerified(theirs, OTHER.key);

    const { subscribers } = read(nginx.store, 'ledgers');

    await settled(read, nginx);
    assert.strictEqual(subscribers.length, 5);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


/* Some bodies are no JSON. */
function laneOf2(one) {
    try {
        return laneOf(one);
    } catch (err) {
        return undefined;
    }
}


test('repairs, and who does not want them', async (t) => {
    const nango = await sim.start(t);
    const wants = await Backend.create(t);
    const without = await Backend.create(t);
    const options = config(`deliver wants ${wants.url};
        deliver without ${without.url} repairs=off;`);

    options.http = asking(options.http, nango.url);

    const nginx = await create(t, options);

    await nginx.start();
    await nango.control('POST', 'connections/bulk', {
        count: 3, owners: 3, integration: 'github',
        tags: { end_user_id: 'u{owner}' } });

    await until('the repairs', () => wants.accepted.length === 3, 20000);
    await post(nginx, sync('c-1'));
    await until('the last', () => without.accepted.length === 1
                                  && wants.accepted.length === 4);

    const sources = wants.got.map((one) =>
        one.headers['x-nango-edge-source']).sort();

    assert.deepStrictEqual(sources, ['nango', 'repair', 'repair', 'repair']);
    assert.strictEqual(without.got[0].headers['x-nango-edge-source'], 'nango');

    for (const one of wants.got.filter(({ headers }) =>
        headers['x-nango-edge-source'] === 'repair'))
    {
        assert.strictEqual(JSON.parse(one.body).from, 'nango-edge');
        assert.strictEqual(one.headers['content-type'], 'application/json');
        assert.match(one.headers['x-nango-edge-owner'], /^end_user_id=u\d$/);
    }

    assertVerified(wants, KEY);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('one that hangs for ever holds up no other', async (t) => {
    const read = reader(t);
    const hangs = await Backend.create(t, { answer: () => null });
    const takes = await Backend.create(t);
    const theirs = await Backend.create(t);
    const nginx = await create(t, config(
        `deliver hangs ${hangs.url} timeout=1h;
         deliver takes ${takes.url};`,
        other(`deliver theirs ${theirs.url};`)));

    await nginx.start();

    for (let i = 0; i < 400; i++) {
        await post(nginx, sync(`c-${i % 40}`), {}, i % 4 ? undefined : OTHER);
    }

    await until('the others', () => takes.accepted.length === 300
                                    && theirs.accepted.length === 100);

    assert.strictEqual(hangs.accepted.length, 0);
    assert.strictEqual(hangs.most, 16);
    assertOrder(takes.got);

    /* What hangs has rows, and the cursor is past it. */

    await until('rows', () => {
        const { hangs: one } = ledgers(read, nginx);

        return one.waiting === 300 && one.rows >= 16;
    });

    assertAlive(nginx);

    /* An hour is not waited for. */

    assert.ok(await nginx.stop(5000));
});


/* Every endpoint that asks somebody. */
function endpoints(name) {
    return `
    location /${name}/ {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;

        location = /${name}/session { nango_session ${name}; }
        location = /${name}/catalog { nango_catalog ${name}; }
        location = /${name}/events  { nango_events ${name}; }
        location = /${name}/connections {
            nango_expose connection_id;
            nango_connections ${name};
        }
        location = /${name}/secret {
            nango_require ${name} github credentials;
            add_header X-Token $nango_credential;
            empty_gif;
        }
    }
`;
}


/* All that a connection can go through, in an environment that is well. */
async function assertWell(nginx, nango, backend, connection) {
    const ask = async (method, url, body, status) => {
        const answer = await once(nginx.port, method, `/prod${url}`, {
            'X-User': connection, 'Content-Type': 'application/json' },
            body && JSON.stringify(body));

        assert.strictEqual(answer.status, status || 200,
                           `${method} ${url}: ${answer.text}`);

        return answer;
    };
    const one = { integration: 'github', connection_id: connection };
    const taken = (n) => until('the delivery', () =>
        backend.accepted.includes(n));

    await ask('POST', '/session', { integration: 'github' });
    await nango.control('POST', 'state', { connections: [{
        ...one, tags: { end_user_id: connection },
        credentials: { type: 'OAUTH2', access_token: `of-${connection}` } }] });

    const { next } = (await ask('GET', '/events')).json;
    const waits = ask('GET', `/events?after=${next}&wait=30`);
    const made = await post(nginx, creation(connection, connection));

    assert.strictEqual((await waits).json.events[0].sequence, made);
    await taken(made);
    await ask('POST', '/connections', one);
    assert.strictEqual((await ask('GET', '/secret')).headers['x-token'],
                       `of-${connection}`);
    assert.ok((await ask('GET', '/catalog')).json.integrations.some(
        (integration) => integration.connected));
    await ask('DELETE', '/connections?integration=github');
    await ask('GET', '/secret', undefined, 404);

    /* What no webhook says is found by itself. */

    await nango.control('POST', 'state', { connections: [{
        ...one, connection_id: `silent-${connection}`,
        tags: { end_user_id: connection } }] });
    await until('the repair', async () => (await ask('GET', '/connections'))
        .json.connections.some((found) => found.connection_id
                                          === `silent-${connection}`), 20000);
}


test('an environment that is broken as a whole holds up no other',
     async (t) => {
    const nango = await sim.start(t);
    const deaf = await Backend.create(t, { answer: () => null });
    const hangs = await Backend.create(t, { answer: () => null });
    const fails = await Backend.create(t, { answer: () => 500 });
    const takes = await Backend.create(t);
    const options = config(`
        api_connections 2;
        deliver takes ${takes.url};`, other(`
        api_timeout     1h;
        api_connections 2;
        deliver hangs ${hangs.url} timeout=1h;
        deliver fails ${fails.url};
        deliver away  http://127.0.0.1:1/;`));
    const broken = options.http.indexOf('nango_environment other');

    options.server += endpoints('prod') + endpoints('other');
    options.http = asking(options.http.slice(0, broken), nango.url)
        + asking(options.http.slice(broken), `http://127.0.0.1:${deaf.port}`)
            .replace(/webhook_signing_key .*;/,
                     'webhook_signing_key file:@DIR@/other.key;');

    const nginx = await create(t, options);
    const key = path.join(nginx.dir, 'other.key');

    fs.writeFileSync(key, OTHER.key);
    await nginx.start();

    /* Its Nango takes what it is asked and says nothing, nor do backends. */

    for (let i = 0; i < 20; i++) {
        await post(nginx, creation(`b-${i}`, 'bob'), {}, OTHER);
    }

    await until('its list to be asked for', () => deaf.got.length);

    const answers = [];

    for (let i = 0; i < 40; i++) {
        const [method, url] = [['POST', 'session'], ['GET', 'catalog'],
                               ['GET', 'secret']][i % 3];

        once(nginx.port, method, `/other/${url}`, { 'X-User': 'bob' })
            .then(({ status }) => answers.push(status),
                  (err) => answers.push(err));
    }

    await until('all of it to hang', () => deaf.got.length > 1
        && hangs.got.length === 16 && fails.got.length >= 10
        && nginx.lines('error').some((line) =>
            /"away" of environment "other" does not take/.test(line)));
    await assertWell(nginx, nango, takes, 'ann');
    assert.deepStrictEqual(answers, []);

    /* Then it is gone altogether, and nobody is sent there any more. */

    await deaf.down();
    await until('them to be told', () => answers.length === 40);
    assert.deepStrictEqual(new Set(answers), new Set([503]));
    await until('it to be known', async () => {
        await once(nginx.port, 'POST', '/other/session', { 'X-User': 'bob' });

        return /environment "other" does not answer/.test(nginx.log());
    });
    await assertWell(nginx, nango, takes, 'eve');

    /* Without its key the next configuration is none. */

    const old = nginx.workers();

    fs.rmSync(key);
    nginx.kill(nginx.master, 'SIGHUP');
    await until('it to be refused', () => nginx.lines('emerg').length);
    await assertWell(nginx, nango, takes, 'joe');

    assert.ok(old.every((pid) => nginx.alive(pid)));
    assert.ok(nginx.lines('emerg').every((line) => /other\.key/.test(line)));
    assert.deepStrictEqual(nginx.lines('alert', 'crit'), []);
    assert.ok(await nginx.stop());
});


test('a connection that fails for ever holds up no other', async (t) => {
    const read = reader(t);
    const backend = await Backend.create(t, {
        answer: (one) => (laneOf(one) === 'broken' ? 500 : 200) });
    const nginx = await create(t, config(
        `deliver app ${backend.url} max_age=5s;`));

    await nginx.start();

    const broken = [];

    for (let i = 0; i < 200; i++) {
        if (i % 4 === 0) {
            broken.push(await post(nginx, sync('broken')));
        } else {
            await post(nginx, sync(`c-${i % 20}`));
        }
    }

    await until('the others', () => backend.accepted.length === 150);
    assertOrder(backend.got);

    /* Its own come one after the other, the first until it is too old. */

    const seen = backend.got.filter((one) => laneOf(one) === 'broken')
        .map((one) => one.sequence);

    assert.ok(seen.every((sequence) => sequence === broken[0]));

    const { app } = await settled(read, nginx, 30000);

    assert.strictEqual(app.delivered, 150);
    assert.strictEqual(app.dead, 50);
    assert.doesNotMatch(nginx.log(), /does not take events/);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('thousands of connections fail at once', async (t) => {
    const read = reader(t);
    const backend = await Backend.create(t, {
        answer: ({ sequence, attempt }) =>
            (sequence % 2 && attempt < 3 ? 500 : 200) });
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=64;`));
    const memory = () => Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(
        `/proc/${nginx.leader()}/status`, 'utf8'))[1]);

    await nginx.start();

    const count = 2000;
    const padding = 'x'.repeat(10000);
    const posts = async (n) => {
        for (let i = n; i < count; i += 8) {
            await post(nginx, sync(`c-${i}`, { padding }));
        }
    };

    await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(posts));
    t.diagnostic(`${ledgers(read, nginx).app.rows} rows, ${memory()} KB`);

    const { app } = await settled(read, nginx, 60000);

    assert.strictEqual(app.delivered, count);
    assert.strictEqual(backend.accepted.length, count);
    assert.strictEqual(new Set(backend.accepted).size, count);
    assert.strictEqual(backend.got.length, 2 * count);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


/* The backlog is longer than what is kept in memory, and has to be on disk. */

test('a long backlog of one connection, and others beside it', async (t) => {
    const read = reader(t);
    let open = false;
    let fail;
    const failed = new Promise((resolve) => { fail = () => resolve(500); });
    const backend = await Backend.create(t, {
        answer: (one) => (laneOf(one) !== 'hot' || open ? 200
                          : one.attempt === 1 ? failed : 500) });
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=4 timeout=1h;`));
    const padding = 'x'.repeat(20000);
    const posts = async (n) => {
        for (let i = 0; i < n; i++) {
            await post(nginx, sync('hot', { padding }));
        }
    };

    await nginx.start();
    await posts(1000);

    for (let i = 0; i < 100; i++) {
        await post(nginx, sync(`c-${i % 10}`));
    }

    /* Of the hot one a single delivery is under way, and hangs. */

    await until('the others', () => backend.accepted.length === 100);

    const hot = () => backend.got.filter((one) => laneOf(one) === 'hot');

    assert.strictEqual(hot().length, 1);
    await until('all of its rows', () => {
        const { app } = ledgers(read, nginx);

        return app.rows === 1000 && app.counted === 1100;
    });
    fail();
    await until('another attempt', () => hot().length > 1);
    assert.strictEqual(new Set(hot().map((one) => one.sequence)).size, 1);

    /* What comes now goes behind all that waits. */

    open = true;
    await posts(20);
    await until('all', () => backend.accepted.length === 1120, 30000);
    assertOrder(backend.got);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('no more at once than was said, and as many', async (t) => {
    const backend = await Backend.create(t, {
        answer: () => ({ status: 200, delay: 30 }) });
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=5;`));

    await nginx.start();
    await backend.down();

    for (let i = 0; i < 200; i++) {
        await post(nginx, sync(`c-${i}`));
    }

    await backend.up();
    await until('all', () => backend.accepted.length === 200, 10000);
    assert.strictEqual(backend.most, 5);
    assert.ok(await nginx.stop());
});


test('subscribers come, go and are renamed over reloads', async (t) => {
    const read = reader(t);
    const [one, two, three] = await Promise.all([1, 2, 3].map(
        () => Backend.create(t)));
    const nginx = await create(t, config(`deliver one ${one.url};`));
    const lines = { 1: `deliver one ${one.url};`,
                    2: `deliver two ${two.url};`,
                    3: `deliver three ${two.url};`,
                    4: `deliver four ${three.url};` };
    const reload = async (...list) => {
        const before = nginx.workers();

        nginx.configure(config(list.map((n) => lines[n]).join('\n')));
        nginx.kill(nginx.master, 'SIGHUP');

        await until('the old ones to go', () =>
            nginx.workers().length === 2
            && !before.some((pid) => nginx.alive(pid)), 20000);
    };
    const burst = async () => {
        const list = [];

        for (let i = 0; i < 20; i++) {
            list.push(await post(nginx, sync(`c-${i % 5}`)));
        }

        return list;
    };

    await nginx.start();
    await known(read, nginx, 1);

    const a = await burst();

    await reload(1, 2);
    await known(read, nginx, 2);

    const b = await burst();

    await until('both', () => one.accepted.length === 40
                              && two.accepted.length === 20);

    /* Who is not there is kept, and goes on where it was. */

    await reload(1);

    const c = await burst();

    await until('one', () => one.accepted.length === 60);
    assert.strictEqual(two.accepted.length, 20);

    /* Beside one that is new. */

    await reload(1, 2, 4);
    await known(read, nginx, 3);
    await until('what was missed', () => two.accepted.length === 40);

    /* With another name it is another one. */

    await reload(1, 3);
    await known(read, nginx, 4);

    const d = await burst();

    await until('the new one', () => two.accepted.length === 60
                                     && one.accepted.length === 80);

    assert.deepStrictEqual(sequences(one), [...a, ...b, ...c, ...d]);
    assert.deepStrictEqual(sequences(two), [...b, ...c, ...d]);
    assert.deepStrictEqual(three.got, []);
    assert.strictEqual(ledgers(read, nginx).two.waiting, 20);
    [one, two].forEach((backend) => assertOrder(backend.got));
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('a body that is no longer there dies, and no other', async (t) => {
    const read = reader(t);
    let fail = true;
    const backend = await Backend.create(t, {
        answer: (one) => (laneOf(one) === 'gone' && fail ? 500 : 200) });
    const nginx = await create(t, config(
        `deliver app ${backend.url} max_age=4s;`));
    const padding = 'x'.repeat(300000);

    await nginx.start();

    const gone = await post(nginx, sync('gone', { padding }));
    const bodies = path.join(nginx.store, 'bodies');

    await until('the first', () => backend.got.length > 0);

    fs.readdirSync(bodies).forEach((name) =>
        fs.rmSync(path.join(bodies, name)));

    /* What is under way has been read, and is answered. */

    await until('it to be missed', () => nginx.lines('crit').length);
    fail = false;

    await post(nginx, sync('gone'));

    for (let i = 0; i < 20; i++) {
        await post(nginx, sync(`c-${i}`, i % 5 ? {} : { padding }));
    }

    const { app } = await settled(read, nginx, 30000);

    assert.strictEqual(app.delivered, 21);
    assert.strictEqual(app.dead, 1);
    assert.strictEqual(backend.accepted.length, 21);
    assert.ok(!backend.accepted.includes(gone));
    assert.ok(nginx.lines('crit').every(
        (line) => /open\(\) ".*bodies.*" failed/.test(line)));
    assert.doesNotMatch(nginx.log(), /exited on signal/);
    assert.ok(await nginx.stop());
});


for (const how of ['newer', 'cut']) {
    test(`one whose record cannot be read (${how}) holds up no other`,
         async (t) =>
    {
        const newer = compile(t, 'newer.c', '-llmdb');
        const backend = await Backend.create(t);
        const other = await Backend.create(t);
        const nginx = await create(t, config(`deliver app ${backend.url};
            deliver other ${other.url};`));

        await nginx.start();
        await post(nginx, sync('c-1'));
        await until('both', () => backend.accepted.length === 1
                                  && other.accepted.length === 1);
        assert.ok(await nginx.stop());

        execFileSync(newer, [nginx.store, 'app',
                             ...(how === 'cut' ? ['cut'] : [])]);

        await nginx.start();
        await post(nginx, sync('c-1'));
        await until('the other', () => other.accepted.length === 2);

        assert.strictEqual(nginx.lines('error').filter((line) =>
            /subscriber "app" .* cannot be read/.test(line)).length, 1);
        assert.strictEqual(backend.accepted.length, 1);
        assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
        assert.ok(await nginx.stop());
    });
}


test('worker_connections are not enough', async (t) => {
    const read = reader(t);
    const backend = await Backend.create(t, {
        answer: () => ({ status: 200, delay: 50 }) });
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=100;`,
        { connections: 40, workers: 1 }));

    await nginx.start();
    await backend.down();

    for (let i = 0; i < 150; i++) {
        await post(nginx, sync(`c-${i}`));
    }

    await backend.up();

    const { app } = await settled(read, nginx, 60000);

    assert.strictEqual(app.delivered, 150);
    assert.strictEqual(backend.accepted.length, 150);
    assert.match(nginx.log(), /worker_connections are not enough/);
    assert.ok(await nginx.stop());
});
