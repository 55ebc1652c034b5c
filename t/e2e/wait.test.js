/*
 * Long polls of connections on two workers: who is woken by what, by whom and
 * how soon; clients that leave; workers that go.
 */

'use strict';

const assert = require('node:assert');
const nodeTest = require('node:test');

const { Client, hmac, once } = require('./client');
const { create, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';

/* As long as it takes a busy machine; the usual is some 20 ms. */
const SOON = 10000;

const HTTP = `
    keepalive_requests 100000;
    nango_store @STORE@;
    nango_environment prod {
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:${KEY};
        reconcile           off;
    }
    nango_environment twin {
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:${KEY};
        reconcile           off;
    }
`;

const SERVER = `
    location = /webhook { nango_webhook prod; }
    location = /twin    { nango_webhook twin; }
    location = /worker  { return 200 $pid; }
    location = /status  { stub_status; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
    location = /both {
        nango_owner  organization_id $http_x_org;
        nango_owner  end_user_id $http_x_user;
        nango_connections prod;
    }
`;


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 60000 }, fn);
}


function event(operation, connection, tags, success) {
    return JSON.stringify({
        connectionId: connection, from: 'nango', operation,
        provider: 'github', providerConfigKey: 'github',
        success: success === undefined ? true : success, tags, type: 'auth',
    });
}


async function running(t, options) {
    const nginx = await create(t, { http: HTTP, server: SERVER,
                                    connections: 2048, ...options });

    await nginx.start();
    await until('two workers', () => nginx.workers().length >= 2);

    return nginx;
}


async function webhook(nginx, body, url) {
    const answer = await once(nginx.port, 'POST', url || '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body);

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json;
}


async function sequence(nginx) {
    return (await once(nginx.port, 'GET', '/connections',
                       { 'X-User': 'nobody' })).json.sequence;
}


/* A client that keeps its connection, and the worker that has it. */
async function clientOf(t, nginx, wanted) {
    for (;;) {
        const client = new Client(nginx.port);

        t.after(() => client.close());

        const worker = Number((await client.request('GET', '/worker')).text);

        if (wanted === undefined || wanted(worker)) {
            return { client, worker };
        }

        client.close();
    }
}


/* {answer: a promise, done: false until then} */
function poll(client, since, wait, headers, url) {
    const one = { done: false, started: Date.now() };

    one.answer = client.request('GET', `${url || '/connections'}?since=`
                                + `${since}&wait=${wait}`,
                                typeof headers === 'string'
                                ? { 'X-User': headers } : headers)
        .then((answer) => {
            one.done = true;
            one.took = Date.now() - one.started;
            assert.strictEqual(answer.status, 200, answer.text);
            return answer.json;
        });

    one.answer.catch(() => {});

    return one;
}


async function polls(t, nginx, n, since, wait, user) {
    const all = [];

    for (let i = 0; i < n; i++) {
        const client = new Client(nginx.port);

        t.after(() => client.close());
        all.push(poll(client, since, wait,
                      typeof user === 'function' ? user(i) : user));
        all[i].client = client;
    }

    await until('all to wait', async () => await active(nginx) >= n);
    await sleep(100);

    return all;
}


async function active(nginx) {
    const { text } = await once(nginx.port, 'GET', '/status');

    return Number(/Active connections: (\d+)/.exec(text)[1]);
}


function quiet(nginx) {
    assert.deepStrictEqual(nginx.lines('error', 'alert', 'crit', 'emerg'), []);
}


test('a webhook of another worker ends it', async (t) => {
    const nginx = await running(t);
    const { client, worker } = await clientOf(t, nginx);
    const other = await clientOf(t, nginx, (pid) => pid !== worker);
    const took = [];
    let since = await sequence(nginx);

    for (let i = 1; i <= 20; i++) {
        const one = poll(client, since, 25, '42');

        await sleep(30);
        assert.strictEqual(one.done, false);

        const body = event('creation', `c-${i}`, { end_user_id: '42' });
        const ack = await other.client.request('POST', '/webhook', {
            'Content-Type': 'application/json',
            'X-Nango-Hmac-Sha256': hmac(body, KEY),
        }, body);
        const sent = Date.now();
        const list = await one.answer;

        took.push(Date.now() - sent);

        assert.strictEqual(ack.status, 200);
        assert.strictEqual(list.changed, true);
        assert.strictEqual(list.sequence, ack.json.sequence);
        assert.strictEqual(list.connections[0].connection_id, `c-${i}`);

        since = list.sequence;
    }

    took.sort((a, b) => a - b);
    t.diagnostic(`from the acknowledgement to the answer: median ${took[10]}`
                 + ` ms, longest ${took[19]} ms`);
    assert.ok(took[19] < SOON, `${took[19]} ms`);
    quiet(nginx);
});


test('each kind of change ends it, and what changes nothing does not',
     async (t) => {
    const nginx = await running(t);
    const tags = { end_user_id: '42' };
    const steps = [
        ['creation', 'c-1', tags],
        ['refresh', 'c-1', {}, false],
        ['refresh', 'c-1', {}, true],
        ['override', 'c-1', { ...tags, plan: 'pro' }],
        ['deletion', 'c-1', {}],
    ];
    const { client } = await clientOf(t, nginx);
    let since = await sequence(nginx);

    for (const step of steps) {
        const one = poll(client, since, 25, '42');

        await sleep(20);
        await webhook(nginx, event(...step));

        const list = await one.answer;

        assert.strictEqual(list.changed, true, step[0]);
        assert.ok(one.took < 20000);
        since = list.sequence;
    }

    /* Failures of connections that there are not, a late creation, a sync. */
    const one = poll(client, since, 2, '42');

    await webhook(nginx, event('creation', 'c-9', tags, false));
    await webhook(nginx, event('refresh', 'c-9', tags, false));
    await webhook(nginx, event('override', 'c-1', tags));
    await webhook(nginx, JSON.stringify({ type: 'sync', connectionId: 'c-1',
        providerConfigKey: 'github', syncName: 's', success: true }));

    const list = await one.answer;

    assert.strictEqual(list.changed, false);
    assert.ok(one.took >= 1900, `${one.took} ms`);
    assert.strictEqual(list.sequence, since + 4);
    quiet(nginx);
});


test('it ends for whom it concerns, before and after', async (t) => {
    const nginx = await running(t);

    await webhook(nginx, event('creation', 'c-1', { end_user_id: 'ann' }));

    const since = await sequence(nginx);
    const [ann, bob, eve] = await polls(t, nginx, 3, since, 3,
                                        (i) => ['ann', 'bob', 'eve'][i]);

    /* From Ann to Bob, and of Eve only in another environment. */
    await webhook(nginx, event('override', 'c-1', { end_user_id: 'bob' }));
    await webhook(nginx, event('creation', 'c-1', { end_user_id: 'eve' }),
                  '/twin');

    const lists = await Promise.all([ann.answer, bob.answer, eve.answer]);

    assert.deepStrictEqual(lists.map((list) => list.changed),
                           [true, true, false]);
    assert.deepStrictEqual(lists.map((list) => list.connections.length),
                           [0, 1, 0]);
    assert.ok(eve.took >= 2900, `${eve.took} ms`);
    quiet(nginx);
});


test('hundreds of owners, and one is told', async (t) => {
    const nginx = await running(t);
    const since = await sequence(nginx);
    const all = await polls(t, nginx, 300, since, 20, (i) => `u${i}`);

    await webhook(nginx, event('creation', 'c-1', { end_user_id: 'u77' }));
    assert.strictEqual((await all[77].answer).changed, true);

    await sleep(300);
    assert.deepStrictEqual(all.flatMap((one, i) => one.done ? [i] : []), [77]);

    for (const one of all) {
        one.client.close(true);
    }

    quiet(nginx);
});


test('hundreds of pages of one owner are all told', async (t) => {
    const nginx = await running(t);
    const since = await sequence(nginx);
    const all = await polls(t, nginx, 400, since, 25, '42');

    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));

    const lists = await Promise.all(all.map((one) => one.answer));

    assert.ok(lists.every((list) => list.changed
                                    && list.connections.length === 1));
    assert.ok(Math.max(...all.map((one) => one.took)) < 20000);
    quiet(nginx);
});


test('a change of one of two owners goes on waiting', async (t) => {
    const nginx = await running(t);
    const { client } = await clientOf(t, nginx);
    const since = await sequence(nginx);
    const me = { 'X-Org': 'acme', 'X-User': '42' };
    const one = poll(client, since, 25, me, '/both');

    for (let i = 0; i < 5; i++) {
        await webhook(nginx, event('creation', `c-${i}`, {
            organization_id: 'acme', end_user_id: '43' }));
        await sleep(40);
    }

    assert.strictEqual(one.done, false);

    await webhook(nginx, event('creation', 'c-42', {
        organization_id: 'acme', end_user_id: '42' }));

    const list = await one.answer;

    assert.strictEqual(list.changed, true);
    assert.strictEqual(list.connections.length, 1);

    /* And when it was woken in vain, its time is over all the same. */
    const two = poll(client, list.sequence, 2, me, '/both');

    await sleep(300);
    await webhook(nginx, event('creation', 'c-7', {
        organization_id: 'acme', end_user_id: '43' }));

    assert.strictEqual((await two.answer).changed, false);
    assert.ok(two.took >= 1900 && two.took < 10000, `${two.took} ms`);
    quiet(nginx);
});


test('a change of just before it is not missed', async (t) => {
    const nginx = await running(t);
    const client = new Client(nginx.port);

    t.after(() => client.close());

    let since = await sequence(nginx);

    for (let i = 0; i < 50; i++) {
        const [ack, list] = await Promise.all([
            webhook(nginx, event('creation', `c-${i}`, { end_user_id: '42' })),
            sleep(i % 8).then(() => poll(client, since, 25, '42').answer),
        ]);

        assert.strictEqual(list.changed, true);
        assert.strictEqual(list.sequence, ack.sequence);
        since = list.sequence;
    }

    quiet(nginx);
});


test('when there is nothing to wait for', async (t) => {
    const nginx = await running(t);
    const client = new Client(nginx.port);
    const ask = async (args) => {
        const start = Date.now();
        const answer = await client.request('GET', `/connections?${args}`,
                                            { 'X-User': '42' });

        return { ...answer, took: Date.now() - start };
    };

    t.after(() => client.close());

    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));

    /* Changed already, from the future, without any time. */
    for (const [args, changed] of [['since=0&wait=25', true],
        ['since=1000&wait=25', true],
        ['since=9223372036854775807&wait=25', true],
        ['since=1&wait=0', false], ['since=1', false]])
    {
        const answer = await ask(args);

        assert.strictEqual(answer.json.changed, changed, args);
        assert.ok(answer.took < SOON, `${args}: ${answer.took} ms`);
    }

    for (const args of ['wait=5', 'since=1&wait=56', 'since=1&wait=-1',
        'since=1&wait=x', 'since=1&wait=',
        `since=1&wait=5&id=${'0'.repeat(32)}`,
        'since=1&wait=99999999999999999999'])
    {
        assert.strictEqual((await ask(args)).status, 400, args);
    }

    /* The time is up, and not before; HEAD waits as well. */
    const answer = await ask('since=1&wait=1');

    assert.strictEqual(answer.json.changed, false);
    assert.strictEqual(answer.json.connections.length, 1);
    assert.ok(answer.took >= 950 && answer.took < 10000, `${answer.took} ms`);
    quiet(nginx);
});


test('clients that leave take nothing with them', async (t) => {
    const nginx = await running(t);
    const since = await sequence(nginx);
    const memory = () => nginx.workers().map((pid) => Number(
        /VmRSS:\s+(\d+)/.exec(require('node:fs')
            .readFileSync(`/proc/${pid}/status`, 'latin1'))[1]))
        .reduce((a, b) => a + b, 0);
    let first = 0;

    for (let round = 0; round < 6; round++) {
        const all = await polls(t, nginx, 300, since, 50,
                                (i) => `u${i % 7}`);

        all.forEach((one, i) => one.client.close(i % 2 === 0));

        await until('their end', async () => await active(nginx) < 10);

        if (round === 1) {
            first = memory();
        }
    }

    const grown = memory() - first;

    t.diagnostic(`1200 more that left: ${grown} KB`);
    assert.ok(grown < 4096, `${grown} KB`);

    /* And those who stay are told. */
    const [one] = await polls(t, nginx, 1, since, 25, 'u3');

    await webhook(nginx, event('creation', 'c-1', { end_user_id: 'u3' }));
    assert.strictEqual((await one.answer).changed, true);
    quiet(nginx);
});


test('one that leaves when it is told', async (t) => {
    const nginx = await running(t);
    let since = await sequence(nginx);

    for (let round = 0; round < 10; round++) {
        const all = await polls(t, nginx, 40, since, 25, '42');

        await Promise.all([
            webhook(nginx, event('creation', `c-${round}`,
                                 { end_user_id: '42' })),
            sleep(round * 2).then(() => {
                all.filter((one, i) => i % 2)
                    .forEach((one) => one.client.close(true));
            }),
        ]);

        const lists = await Promise.all(all.filter((one, i) => i % 2 === 0)
            .map((one) => one.answer));

        assert.ok(lists.every((list) => list.changed));
        since = lists[0].sequence;
        all.forEach((one) => one.client.close());
    }

    await until('their end', async () => await active(nginx) < 5);
    quiet(nginx);
});


for (const [what, signal] of [['a reload', 'SIGHUP'], ['a quit', 'SIGQUIT']]) {
    test(`${what} ends five hundred that wait, at once`, async (t) => {
        const nginx = await running(t);
        const old = nginx.workers();
        const since = await sequence(nginx);
        const all = await polls(t, nginx, 500, since, 55, (i) => `u${i % 9}`);
        const start = Date.now();

        nginx.kill(nginx.master, signal);

        const lists = await Promise.all(all.map((one) => one.answer));

        t.diagnostic(`${Date.now() - start} ms`);
        assert.ok(Date.now() - start < 10000);
        assert.ok(lists.every((list) => list.changed === false
                                        && list.sequence === since));

        await until('the old workers to end',
                    () => !old.some((pid) => nginx.alive(pid)), 20000);

        quiet(nginx);

        if (signal === 'SIGHUP') {
            const [one] = await polls(t, nginx, 1, since, 25, '42');

            await webhook(nginx, event('creation', 'c-1',
                                       { end_user_id: '42' }));
            assert.strictEqual((await one.answer).changed, true);
        }
    });
}


test('the leader dies while they wait', async (t) => {
    const nginx = await running(t);

    await until('a leader', () => nginx.leader());

    const since = await sequence(nginx);
    const leader = nginx.leader();
    const { client } = await clientOf(t, nginx, (pid) => pid !== leader);
    const one = poll(client, since, 30, '42');

    await sleep(100);
    nginx.kill(leader, 'SIGKILL');
    await until('another worker', () => !nginx.alive(leader)
                                        && nginx.workers().length >= 2);
    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));

    assert.strictEqual((await one.answer).changed, true);
    assert.ok(one.took < 25000);
});
