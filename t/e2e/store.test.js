/*
 * The store in trouble and at work: one that cannot be opened, clients that
 * leave and workers that quit while a webhook is being committed, environments
 * beside each other, bodies that are files, and what a kill leaves of them.
 */

'use strict';

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const nodeTest = require('node:test');

const { Client, hmac, once } = require('./client');
const { startOnClock, HOUR } = require('./clock');
const { compile, reader } = require('./model');
const { create, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const DEV_KEY = 'signing-key-of-dev';
const MEMORY = 128 * 1024;
const TWO_HOURS = 2 * 3600;
const ROOT = process.getuid() === 0;

const HTTP = `
    nango_store @STORE@;
    nango_environment prod {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:${KEY};
    }
    nango_environment dev {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abce;
        webhook_signing_key data:${DEV_KEY};
    }
`;

const SERVER = `
    location = /webhook { nango_webhook prod; }
    location = /dev     { nango_webhook dev; }
    location = /plain   { return 200 "plain\\n"; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
    location = /dev/connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections dev;
    }
`;


/* None may hang: what waits for ever is a failure. */
function test(name, options, fn) {
    return nodeTest(name, { timeout: 30000, ...options }, fn);
}


/* A creation of that many bytes at least. */
function creation(connection, size, user) {
    const event = {
        connectionId: connection,
        from: 'nango',
        operation: 'creation',
        provider: 'github',
        providerConfigKey: 'github',
        success: true,
        tags: { end_user_id: user || '42' },
        type: 'auth',
        padding: '',
    };
    const len = JSON.stringify(event).length;

    event.padding = 'x'.repeat(Math.max(0, (size || 0) - len));

    return JSON.stringify(event);
}


function signed(body, key) {
    return { 'Content-Type': 'application/json',
             'X-Nango-Hmac-Sha256': hmac(body, key || KEY) };
}


function send(port, body, key, url) {
    return once(port, 'POST', url || '/webhook', signed(body, key), body);
}


async function connections(nginx, user, url) {
    const answer = await once(nginx.port, 'GET', url || '/connections',
                              { 'X-User': user });

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json.connections.map((c) => c.connection_id).sort();
}


function files(nginx, name) {
    return fs.readdirSync(path.join(nginx.store, name)).sort();
}


async function prepared(t) {
    return create(t, { http: HTTP, server: SERVER });
}


async function running(t) {
    const nginx = await prepared(t);

    await nginx.start();
    await until('two workers', () => nginx.workers().length === 2);

    return nginx;
}


function assertCalm(nginx) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
}


/* Like chown(1), where the workers are somebody else. */
function give(file) {
    if (ROOT) {
        const [, uid, gid] = /^nobody:[^:]*:(\d+):(\d+):/m.exec(
            fs.readFileSync('/etc/passwd', 'latin1'));

        fs.chownSync(file, Number(uid), Number(gid));
    }
}


/* The writer lock of the log, until released. */
async function hold(t, nginx) {
    const child = spawn(compile(t, 'hold.c', '-llmdb'), [nginx.store],
                        { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => { child.once('exit', resolve); });

    t.after(() => child.kill('SIGKILL'));

    await new Promise((resolve, reject) => {
        child.once('error', reject);
        child.once('exit', reject);
        child.stdout.once('data', resolve);
    });

    return () => {
        child.stdin.end();
        return ended;
    };
}


/* How a store is spoilt, and mended. */
const CAUSES = {
    "a directory that is somebody else's": {
        skip: ROOT ? false : 'only root can make one',
        spoil: (store) => {
            fs.mkdirSync(store);
            give(store);
            fs.mkdirSync(`${store}/log`, { mode: 0o700 });
        },
        mend: (store) => give(`${store}/log`),
    },
    'a log of garbage': {
        spoil: (store) => spoilt(store, 'log'),
        mend: (store) => fs.unlinkSync(`${store}/log/data.mdb`),
    },
    'a state of garbage': {
        spoil: (store) => spoilt(store, 'state'),
        mend: (store) => fs.unlinkSync(`${store}/state/data.mdb`),
    },
};


function spoilt(store, name) {
    const file = `${store}/${name}/data.mdb`;

    fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    fs.writeFileSync(file, Buffer.alloc(65536, 'garbage'), { mode: 0o600 });

    for (const one of [store, path.dirname(file), file]) {
        give(one);
    }
}


for (const [cause, { skip, spoil, mend }] of Object.entries(CAUSES)) {
    test(`${cause}: 503 here, 200 elsewhere, until it is mended`, { skip },
         async (t) =>
    {
        const nginx = await prepared(t);
        const plain = async () => assert.strictEqual(
            (await once(nginx.port, 'GET', '/plain')).status, 200);

        spoil(nginx.store);
        await nginx.start();

        await until('both workers to complain', () =>
            nginx.lines('crit').length >= 2);

        /* Longer than it takes to try twice. */

        for (let i = 0; i < 25; i++) {
            const body = creation(`c-${i}`, i % 5 ? 0 : 2 * MEMORY);
            const answer = await send(nginx.port, body);

            assert.strictEqual(answer.status, 503);
            assert.strictEqual(answer.headers['x-nango-error'],
                               'store_unavailable');
            await plain();
            await sleep(100);
        }

        const list = await once(nginx.port, 'GET', '/connections',
                                { 'X-User': '42' });

        assert.strictEqual(list.status, 503);
        assert.strictEqual(list.headers['x-nango-error'],
                           'store_unavailable');

        const lines = nginx.lines('emerg', 'alert', 'crit');

        assert.strictEqual(lines.length, 2, lines.join('\n'));
        assert.ok(lines.every((line) => /\[crit\].* nango: /.test(line)));
        assert.strictEqual(new Set(lines.map(
            (line) => /\] (\d+)#/.exec(line)[1])).size, 2);

        mend(nginx.store);

        await until('the store', () => nginx.lines('notice').filter((line) =>
            /nango: the store in .* is open/.test(line)).length === 2);

        for (let i = 0; i < 10; i++) {
            assert.strictEqual(
                (await send(nginx.port, creation(`d-${i}`))).status, 200);
        }

        assert.strictEqual((await connections(nginx, '42')).length, 10);
        await plain();

        assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), lines);
    });
}


/*
 * Whoever sleeps does so by the real clock, which is an hour behind the one
 * that is looked at: as if that had just been put right.
 */

test('a clock that is put back holds up no store', {}, async (t) => {
    const nginx = await prepared(t);
    const { spoil, mend } = CAUSES['a log of garbage'];

    spoil(nginx.store);
    await startOnClock(t, nginx, { wall: true, ahead: HOUR });

    await until('both workers to fail', () => nginx.lines('crit').length === 2);

    mend(nginx.store);

    await until('the store', () => nginx.lines('notice').filter(
        (line) => /nango: the store in .* is open/.test(line)).length === 2);
});


/* Nobody need wait for a webhook to have it made of the log again. */

test('a state that is lost in the quiet is there again', {}, async (t) => {
    const nginx = await running(t);
    const there = async () => {
        const { status, json } = await once(nginx.port, 'GET', '/connections',
                                            { 'X-User': '42' });

        return status === 200 && json.connections.length === 3;
    };

    for (let i = 0; i < 3; i++) {
        assert.strictEqual(
            (await send(nginx.port, creation(`c-${i}`))).status, 200);
    }

    await until('the fold', there);
    await nginx.still(() =>
        fs.rmSync(path.join(nginx.store, 'state'), { recursive: true }));
    await until('it to be missed', () =>
        /store\/state\/data\.mdb" has been removed/.test(nginx.log()));
    await until('another state', there);
});


/* Sent on connections of their own, small ones and one that is a file. */
function sendMany(nginx, prefix, n) {
    return Array.from({ length: n }, (_, i) => {
        const client = new Client(nginx.port);
        const body = creation(`${prefix}-${i}`, i === 0 ? 2 * MEMORY : 0);
        const answer = client.request('POST', '/webhook', signed(body), body);

        answer.catch(() => {});

        return { client, body, answer };
    });
}


test('clients that leave while their webhook is being committed', {},
     async (t) =>
{
    const read = reader(t);
    const nginx = await running(t);
    const workers = nginx.workers();

    assert.strictEqual((await send(nginx.port, creation('first'))).status, 200);

    const release = await hold(t, nginx);
    const sent = sendMany(nginx, 'gone', 10);

    await until('the body', () => files(nginx, 'bodies').length === 1);
    await sleep(200);
    sent.forEach(({ client }, i) => client.close(i % 2 === 0));
    await sleep(200);

    assert.strictEqual(read(nginx.store).events.length, 1);
    await release();

    await until('the commit', () => read(nginx.store).events.length === 11);

    const { events } = read(nginx.store);

    for (const { body } of sent) {
        const answer = await send(nginx.port, body);
        const event = events.find((one) => one.hmac === hmac(body, KEY));

        assert.deepStrictEqual(answer.json, {
            ack: true, sequence: event.sequence, duplicate: true,
        });
    }

    assert.strictEqual((await connections(nginx, '42')).length, 11);
    assert.deepStrictEqual(files(nginx, 'temp'), []);
    assert.strictEqual(files(nginx, 'bodies').length, 1);

    assert.deepStrictEqual(nginx.workers(), workers);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assertCalm(nginx);
});


for (const who of ['master', 'workers']) {
    test(`SIGQUIT for the ${who}: what is in flight is answered`, {},
         async (t) =>
    {
        const read = reader(t);
        const nginx = await running(t);
        const workers = nginx.workers();

        assert.strictEqual((await send(nginx.port, creation('first'))).status,
                           200);

        const release = await hold(t, nginx);
        const sent = sendMany(nginx, 'late', 10);

        await until('the body', () => files(nginx, 'bodies').length === 1);
        await sleep(200);

        (who === 'master' ? [nginx.master] : workers)
            .forEach((pid) => nginx.kill(pid, 'SIGQUIT'));

        await sleep(500);
        assert.ok(workers.some((pid) => nginx.alive(pid)));
        await release();

        const sequences = (await Promise.all(sent.map(
            ({ answer }) => answer))).map((answer) => {
            assert.strictEqual(answer.status, 200);
            return answer.json.sequence;
        });

        await until('the workers to end', () => !workers.some(
            (pid) => nginx.alive(pid)), 5000);

        sent.forEach(({ client }) => client.close());

        if (who === 'workers') {
            await until('others', () => nginx.workers().length === 2);
            assert.strictEqual((await connections(nginx, '42')).length, 11);
        }

        assert.strictEqual(new Set(sequences).size, 10);

        const { events } = read(nginx.store);

        sent.forEach(({ body }, i) => assert.strictEqual(
            events.find((one) => one.sequence === sequences[i]).hmac,
            hmac(body, KEY)));

        assert.ok(await nginx.stop(), 'nginx does not end');
        assertCalm(nginx);
    });
}


test('two environments with keys of their own are kept apart', {},
     async (t) =>
{
    const read = reader(t);
    const nginx = await running(t);
    const same = creation('both');
    const answers = [
        await send(nginx.port, same),
        await send(nginx.port, same, DEV_KEY, '/dev'),
        await send(nginx.port, creation('only-dev'), DEV_KEY, '/dev'),
        await send(nginx.port, creation('only-prod')),
    ];

    assert.deepStrictEqual(answers.map(({ json }) => json), [1, 2, 3, 4].map(
        (sequence) => ({ ack: true, sequence })));

    assert.strictEqual((await send(nginx.port, same, DEV_KEY)).status, 401);
    assert.strictEqual((await send(nginx.port, same, KEY, '/dev')).status,
                       401);

    assert.deepStrictEqual(await connections(nginx, '42'),
                           ['both', 'only-prod']);
    assert.deepStrictEqual(await connections(nginx, '42', '/dev/connections'),
                           ['both', 'only-dev']);

    /* What is deleted in one is there in the other. */

    const deletion = JSON.stringify({
        connectionId: 'both', operation: 'deletion',
        providerConfigKey: 'github', type: 'auth',
    });

    assert.strictEqual(
        (await send(nginx.port, deletion, DEV_KEY, '/dev')).status, 200);
    assert.deepStrictEqual(await connections(nginx, '42'),
                           ['both', 'only-prod']);
    assert.deepStrictEqual(await connections(nginx, '42', '/dev/connections'),
                           ['only-dev']);

    assert.deepStrictEqual(
        read(nginx.store).events.map((event) => event.environment),
        ['prod', 'dev', 'dev', 'prod', 'dev']);
    assertCalm(nginx);
});


/* Without a length: nobody knows how long it will be. */
function sendChunked(nginx, body) {
    return new Promise((resolve, reject) => {
        const req = http.request({
            host: '127.0.0.1', port: nginx.port, path: '/webhook',
            method: 'POST', agent: false,
            headers: { ...signed(body), 'Transfer-Encoding': 'chunked' },
        }, (res) => {
            res.resume();
            res.on('end', () => resolve(res.statusCode));
        });

        req.on('error', reject);

        for (let i = 0; i < body.length; i += 30000) {
            req.write(body.slice(i, i + 30000));
        }

        req.end();
    });
}


test('bodies over 128 KB are files', {}, async (t) => {
    const read = reader(t);
    const nginx = await running(t);
    const content = (name) => fs.readFileSync(
        path.join(nginx.store, 'bodies', name), 'utf8');

    const most = creation('most', MEMORY);
    const large = creation('large', MEMORY + 1);
    const chunked = creation('chunked', 3 * MEMORY);
    const empty = (name) => until(`an empty ${name}`,
                                  () => files(nginx, name).length === 0);

    assert.strictEqual(most.length, MEMORY);
    assert.strictEqual((await send(nginx.port, most)).status, 200);
    await empty('temp');
    await empty('bodies');

    /* A forged one leaves nothing behind. */

    const forged = await send(nginx.port, large, 'another key');

    assert.strictEqual(forged.status, 401);
    await empty('temp');
    await empty('bodies');

    /* Nor does one of which only a part came. */

    const client = new Client(nginx.port);
    const half = client.request('POST', '/webhook', {
        ...signed(chunked), 'Content-Length': chunked.length,
    }, chunked.slice(0, 2 * MEMORY));

    half.catch(() => {});
    await until('a temporary file', () => files(nginx, 'temp').length === 1);
    client.close();
    await empty('temp');
    await empty('bodies');

    assert.strictEqual((await send(nginx.port, large)).status, 200);
    assert.strictEqual(await sendChunked(nginx, chunked), 200);

    const { events } = read(nginx.store);

    assert.strictEqual(events.length, 3);
    assert.strictEqual(events[0].body_file, undefined);
    assert.strictEqual(content(events[1].body_file), large);
    assert.strictEqual(content(events[2].body_file), chunked);

    /* A repeat's file goes. */

    assert.strictEqual((await send(nginx.port, large)).json.duplicate, true);
    await until('the repeat\'s file to go',
                () => files(nginx, 'bodies').length === 2);
    await empty('temp');

    assert.deepStrictEqual(await connections(nginx, '42'),
                           ['chunked', 'large', 'most']);
    assertCalm(nginx);
});


test('what a kill leaves of bodies is swept, and nothing else', {},
     async (t) =>
{
    const read = reader(t);
    const aged = compile(t, 'aged.c', '-shared', '-fPIC', '-ldl');
    const nginx = await running(t);

    assert.strictEqual(
        (await send(nginx.port, creation('kept', 2 * MEMORY))).status, 200);
    assert.strictEqual(
        (await send(nginx.port, creation('kept-2', 2 * MEMORY))).status, 200);
    assert.strictEqual((await connections(nginx, '42')).length, 2);

    const kept = read(nginx.store).events.map((event) => event.body_file);

    /* One that is being committed, and one that is being received. */

    const release = await hold(t, nginx);
    const [orphan] = sendMany(nginx, 'orphan', 1);

    await until('the body', () => files(nginx, 'bodies').length === 3);

    const large = creation('half', 4 * MEMORY);
    const client = new Client(nginx.port);

    client.request('POST', '/webhook', {
        ...signed(large), 'Content-Length': large.length,
    }, large.slice(0, large.length / 2)).catch(() => {});

    await until('a temporary file', () => files(nginx, 'temp').length === 1);
    await nginx.killAll();
    await release();

    client.close();
    orphan.client.close();

    const left = files(nginx, 'bodies').find((name) => !kept.includes(name));

    /* Young ones may still be on their way into the log. */

    await nginx.start();
    await until('a leader', () => nginx.leader());
    await sleep(300);
    assert.deepStrictEqual(files(nginx, 'bodies'), [...kept, left].sort());
    assert.strictEqual(files(nginx, 'temp').length, 1);
    await nginx.stop();

    /* Two hours later: of one that is kept the mark is lost as well. */

    const then = Date.now() / 1000 - TWO_HOURS;

    for (const name of ['bodies', 'temp']) {
        files(nginx, name).forEach((file) => fs.utimesSync(
            path.join(nginx.store, name, file), then, then));
    }

    fs.chmodSync(path.join(nginx.store, 'bodies', kept[1]), 0o600);

    await nginx.start({ LD_PRELOAD: aged });
    await until('the orphan to go', () => !files(nginx, 'bodies')
        .includes(left), 3000);
    await until('what was being received to go',
                () => files(nginx, 'temp').length === 0, 3000);

    assert.deepStrictEqual(files(nginx, 'bodies'), kept.slice().sort());
    assert.strictEqual((await connections(nginx, '42')).length, 2);

    /* Nango sends it again, and it is no duplicate. */

    const answer = await send(nginx.port, orphan.body);

    assert.deepStrictEqual(answer.json, { ack: true, sequence: 3 });
    assertCalm(nginx);
});


/* Its file is as old then as what a kill leaves. */

test('a body whose commit a clock leaps over is acknowledged whole', {},
     async (t) =>
{
    const nginx = await prepared(t);
    const clock = await startOnClock(t, nginx);

    await until('a leader', () => nginx.leader());

    const release = await hold(t, nginx);
    const [sent] = sendMany(nginx, 'large', 1);

    await until('the body', () => files(nginx, 'bodies').length === 1);
    clock.forward(2 * HOUR);
    await sleep(1500);
    await release();

    const { status } = await sent.answer;

    if (status === 200) {
        assert.strictEqual(files(nginx, 'bodies').length, 1);
        assert.deepStrictEqual(await connections(nginx, '42'), ['large-0']);

    } else {
        assert.strictEqual(status, 503);
    }

    assertCalm(nginx);
});
