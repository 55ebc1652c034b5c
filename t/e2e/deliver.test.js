/*
 * What is delivered to backends, in what order, and what happens while one of
 * them is away.
 */

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { test } = require('node:test');

const { Backend } = require('./backend');
const { hmac, once } = require('./client');
const { assertOrder, config, creation, KEY, ledgers, post, settled, sync }
    = require('./deliver');
const { compile, reader } = require('./model');
const { create, sleep, until } = require('./nginx');


test('an event arrives as it came', async (t) => {
    const backend = await Backend.create(t);
    const { http, ...rest } = config(`deliver app ${backend.url}
                                      header=X-Token:data:abc;`);
    const nginx = await create(t, { ...rest,
        http: `${http} underscores_in_headers on;` });

    await nginx.start();

    const first = creation('c-1', 'ann/ä;b');
    const body = Buffer.from('{"type":"forward","from":"github",\n "n": 1e400,'
        + '"providerConfigKey":"github","connectionId":"c-1","p":"\\ud800"}');

    await post(nginx, first);
    const sequence = await post(nginx, body, {
        'X-Nango-Signature': 'abc', 'User-Agent': 'nango/1',
        'X-GitHub-Event': 'push', 'X-Empty': '', Cookie: 'secret=1',
        Authorization: 'Bearer x', 'X-Nango-Edge-Owner': 'end_user_id=eve',
        'X-Nango-Edge-Sequence': '99',

        /* To what makes variables of headers they are the same. */
        'X_Nango-Edge_Source': 'edge', X_Token: 'eve', X_Other: '1',
    });

    await until('both', () => backend.accepted.length === 2);

    const [, one] = backend.got;

    assert.strictEqual(one.method, 'POST');
    assert.strictEqual(one.url, '/hook?from=nango');
    assert.deepStrictEqual(one.body, body);
    assert.strictEqual(one.sequence, sequence);

    const { headers } = one;

    assert.strictEqual(headers['content-type'], 'application/json');
    assert.strictEqual(headers['content-length'], String(body.length));
    assert.strictEqual(headers['x-nango-hmac-sha256'], hmac(body, KEY));
    assert.strictEqual(headers['x-nango-signature'], 'abc');
    assert.strictEqual(headers['user-agent'], 'nango/1');
    assert.strictEqual(headers['x-github-event'], 'push');
    assert.strictEqual(headers['x-empty'], '');
    assert.strictEqual(headers.cookie, undefined);
    assert.strictEqual(headers.authorization, undefined);
    assert.strictEqual(headers['x-nango-edge-attempt'], '1');
    assert.strictEqual(headers['x-nango-edge-environment'], 'prod');
    assert.strictEqual(headers['x-nango-edge-source'], 'nango');
    assert.strictEqual(headers['x-token'], 'abc');
    assert.strictEqual(headers.x_other, '1');
    assert.deepStrictEqual(Object.keys(headers).filter((name) =>
        /^x_/.test(name)), ['x_other']);
    assert.strictEqual(headers['x-nango-edge-owner'],
                       'end_user_id=ann%2f%c3%a4%3bb');
    assert.match(headers['x-nango-edge-received-at'],
                 /^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.ok(await nginx.stop());
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit', 'error'), []);
});


test('no header comes twice', async (t) => {
    const backend = await Backend.create(t);
    const nginx = await create(t, config(`deliver app ${backend.url};`));

    await nginx.start();

    for (const accept of ['text/x-own', '']) {
        await post(nginx, sync('c-1'), {
            Accept: accept, 'Accept-Encoding': 'x-none',
            'Proxy-Connection': 'close', 'User-Agent': 'nango/1' });
    }

    await until('both', () => backend.accepted.length === 2);

    backend.got.forEach(({ raw, headers }, i) => {
        const names = raw.filter((_, k) => k % 2 === 0)
            .map((name) => name.toLowerCase());

        assert.deepStrictEqual(names, [...new Set(names)]);
        assert.strictEqual(headers.accept, ['text/x-own', ''][i]);
        assert.strictEqual(headers['user-agent'], 'nango/1');
        assert.strictEqual(headers['accept-encoding'], undefined);
        assert.strictEqual(headers['proxy-connection'], undefined);
    });

    assert.ok(await nginx.stop());
});


test('a body that is a file, and to a unix socket', async (t) => {
    const backend = await Backend.create(t);
    const nginx = await create(t, config(''));
    const local = await Backend.create(t, {
        socket: path.join(nginx.dir, 'app.sock') });

    nginx.configure(config(`deliver app ${backend.url};
        deliver local ${local.url} "header=X-Token:data:abc def"
                header=X-GitHub-Event:data:own;`));
    await nginx.start();

    const body = sync('c-1', { padding: 'x'.repeat(3 * 1024 * 1024) });

    await post(nginx, body, { 'X-GitHub-Event': 'push' });
    await until('it', () => backend.accepted.length === 1
                            && local.accepted.length === 1);

    assert.ok(backend.got[0].body.equals(Buffer.from(body)));
    assert.ok(local.got[0].body.equals(Buffer.from(body)));
    assert.strictEqual(local.got[0].headers['x-token'], 'abc def');

    /* Instead of what came, not beside it. */

    const lines = local.got[0].raw.join('\n');

    assert.deepStrictEqual(lines.match(/^x-github-event\n.*/gim),
                           ['X-GitHub-Event\nown']);
    assert.strictEqual(backend.got[0].headers['x-github-event'], 'push');
    assert.strictEqual(backend.got[0].headers['x-token'], undefined);
    assert.strictEqual(backend.got[0].headers.expect, undefined);
    assert.ok(await nginx.stop());
});


test('in order for each connection, whatever fails', async (t) => {
    const failed = new Set();
    const backend = await Backend.create(t, {
        answer: ({ sequence }) => {
            if (sequence % 3 === 0 && !failed.has(sequence)) {
                failed.add(sequence);
                return 500;
            }

            return { status: 200, delay: sequence % 5 };
        },
    });
    const nginx = await create(t, config(`deliver app ${backend.url};`));

    await nginx.start();

    for (let i = 0; i < 120; i++) {
        await post(nginx, sync(`c-${i % 7}`));
    }

    await until('all', () => backend.accepted.length >= 120, 60000);

    assert.strictEqual(new Set(backend.accepted).size, 120);
    assert.strictEqual(backend.accepted.length, 120);

    assertOrder(backend.got);
    assert.ok(await nginx.stop());
});


test('a backend that was away gets everything', async (t) => {
    const backend = await Backend.create(t);
    const nginx = await create(t, config(`deliver app ${backend.url};`, {
        locations: 'location = /status { nango_status; }' }));
    const down = async () => {
        const { json } = await once(nginx.port, 'GET', '/status');
        const [{ down: now, down_since: since }] = json.subscribers;

        assert.strictEqual(now, since !== null);

        return now;
    };

    await nginx.start();
    await post(nginx, sync('c-0'));
    await until('the first', () => backend.accepted.length === 1);
    await backend.down();

    for (let i = 0; i < 300; i++) {
        await post(nginx, sync(`c-${i % 50}`));
    }

    await until('it to be noticed', () => nginx.lines('error').some(
        (line) => /does not take events/.test(line)));
    await until('that to be told', down);
    await backend.up();
    await until('all', () => backend.accepted.length >= 301, 60000);
    assert.strictEqual(await down(), false);

    assert.strictEqual(backend.accepted.length, 301);
    assert.strictEqual(new Set(backend.accepted).size, 301);
    assert.ok(await nginx.stop());

    /* Once more, and nothing is delivered twice. */

    await nginx.start();
    await post(nginx, sync('c-1'));
    await until('one more', () => backend.accepted.length >= 302);
    await sleep(500);
    assert.strictEqual(backend.accepted.length, 302);
    assert.ok(await nginx.stop());
});


/* All subscribers are new to a state that is. */

test('a state that is lost while nginx runs loses no delivery', async (t) => {
    const backend = await Backend.create(t);
    const nginx = await create(t, config(`deliver app ${backend.url};`));
    const state = path.join(nginx.store, 'state');
    let sent = 0;

    await nginx.start();
    await backend.down();

    for (let i = 0; i < 3; i++) {
        for (let k = 0; k < 20; k++) {
            await post(nginx, sync(`c-${k % 3}`));
            sent++;
        }

        await nginx.still(() => fs.rmSync(state, { recursive: true }));

        await until('another state', () =>
            fs.existsSync(path.join(state, 'data.mdb')));
    }

    await backend.up();
    await until('all', () => new Set(backend.accepted).size === sent, 60000);
    assert.ok(await nginx.stop());
});


/* Whoever leads tries to make them known while that cannot be, and after it. */

test('nor does one that cannot be made anew at once', async (t) => {
    const backend = await Backend.create(t);
    const nginx = await create(t, config(`deliver app ${backend.url};`));
    const state = path.join(nginx.store, 'state');
    let sent = 0;

    /* As Nango does: a worker that has not noticed yet refuses it. */
    const send = (body) => until('a webhook to be taken', () =>
        post(nginx, body).then(() => ++sent, () => false), 20000);

    await nginx.start();
    await backend.down();

    for (let i = 0; i < 6; i++) {
        for (let k = 0; k < 20; k++) {
            await send(sync(`c-${k % 3}`));
        }

        await nginx.still(() => {
            fs.rmSync(state, { recursive: true });
            fs.writeFileSync(state, 'in the way');
        });

        /* It is missed within a second, and tried for every second then. */

        await sleep(2000 + i * 150);
        fs.unlinkSync(state);
    }

    await backend.up();
    await until('all', () => new Set(backend.accepted).size === sent, 60000);
    assert.ok(await nginx.stop());
});


/* Nobody else leads while it has a client that takes its time. */

test('nor one that is lost to a worker that is about to end', async (t) => {
    const read = reader(t);
    const backend = await Backend.create(t);
    const { server, ...rest } = config(`deliver app ${backend.url};`);
    const nginx = await create(t, { ...rest, workers: 1,
        server: `${server} location = /slow {
            limit_rate 10;
            return 200 ${'x'.repeat(3000)};
        }` });
    const state = path.join(nginx.store, 'state');

    await nginx.start();
    await backend.down();

    for (let i = 0; i < 20; i++) {
        await post(nginx, sync(`c-${i % 3}`));
    }

    const client = net.connect(nginx.port, '127.0.0.1');

    t.after(() => client.destroy());
    client.write('GET /slow HTTP/1.0\r\n\r\n');
    await new Promise((resolve) => { client.once('data', resolve); });

    nginx.kill(nginx.master, 'SIGQUIT');

    /* It leads no longer, and a second later it does again. */

    await sleep(3000);
    await until('a leader', () => nginx.leader());
    await nginx.still(() => fs.rmSync(state, { recursive: true }));

    await until('another state', () =>
        fs.existsSync(path.join(state, 'data.mdb')));
    await until('the fold', () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.applied === meta.last;
    });

    client.destroy();
    await until('its end', () => nginx.workers().length === 0);

    await backend.up();
    await nginx.start();
    await until('all', () => new Set(backend.accepted).size === 20, 60000);
    assert.ok(await nginx.stop());
});


/* It has a row meanwhile, which is not to be taken for one that waits. */

test('a delivery that takes its time is made once', async (t) => {
    const read = reader(t);
    let take;
    const taken = new Promise((resolve) => { take = () => resolve(200); });
    const backend = await Backend.create(t, { answer: () => taken });
    const nginx = await create(t, config(`deliver app ${backend.url};`));

    await nginx.start();

    for (let i = 0; i < 5; i++) {
        await post(nginx, sync(`c-${i}`));
    }

    await until('rows', () => ledgers(read, nginx).app?.rows === 5);
    await sleep(300);
    take();

    const { app } = await settled(read, nginx);

    assert.strictEqual(app.delivered, 5);
    assert.strictEqual(backend.got.length, 5);
    assert.ok(await nginx.stop());
});


/* Then all that it is owed has rows, and nothing else is left to try it with. */

test('a backend that has failed everybody gets everything', async (t) => {
    let fail = true;
    const backend = await Backend.create(t, { answer: () => (fail ? 500
                                                             : 200) });
    const nginx = await create(t, config(`deliver app ${backend.url};`));

    await nginx.start();

    /* So many are thought to be all. */

    for (let i = 0; i < 10; i++) {
        await post(nginx, sync(`c-${i}`));
    }

    await until('it to be noticed', () => nginx.lines('error').some(
        (line) => /does not take events/.test(line)));
    fail = false;
    await until('all', () => backend.accepted.length === 10, 30000);
    assert.strictEqual(new Set(backend.accepted).size, 10);
    assert.ok(await nginx.stop());
});


/* A sanitizer has to be the first that is loaded. */

const PRELOAD = { skip: process.env.ASAN_OPTIONS && 'nothing is preloaded' };

test('deliveries cost few commits', PRELOAD, async (t) => {
    const backend = await Backend.create(t);
    const nginx = await create(t, config(`deliver app ${backend.url};`));
    const shim = compile(t, 'shim_sync.c', '-shared', '-fPIC');
    const control = path.join(nginx.dir, 'syncs');
    const count = 2000;
    const posts = async (n) => {
        for (let i = n; i < count; i += 8) {
            await post(nginx, sync(`c-${i % 100}`));
        }
    };

    fs.writeFileSync(control, Buffer.alloc(8));
    fs.chmodSync(control, 0o666);

    const syncs = () => Number(fs.readFileSync(control).readBigUInt64LE());

    await nginx.start({ LD_PRELOAD: shim, NANGO_SYNCS: control });
    await backend.down();
    await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(posts));

    const before = syncs();

    assert.ok(before > 0);
    await backend.up();
    await until('all', () => backend.accepted.length === count, 30000);

    const during = syncs() - before;

    t.diagnostic(`${before} syncs for ${count} webhooks, ${during} to deliver `
                 + 'them');
    assert.ok(during < count / 5, `${during}`);
    assert.ok(await nginx.stop());
});
