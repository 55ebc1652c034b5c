/*
 * The leader's comparison of the state with Nango's list: what webhooks have
 * not said is repaired, by events of its own, and nothing else is touched.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const nodeTest = require('node:test');

const sim = require('../sim/helper');
const { API_KEY } = require('../sim/nango');
const { bodies, hold } = require('./edge');
const { hmac, once } = require('./client');
const { startOnClock, HOUR } = require('./clock');
const { compile, reader } = require('./model');
const { create, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const REPAIR = 1;
const LONG = process.env.NANGO_LONG === '1';


function settings(api, more) {
    return {
        http: `
    nango_store @STORE@;
    nango_environment prod {
        api                 ${api};
        api_public          https://nango.example.com;
        api_key             data:${API_KEY};
        webhook_signing_key data:${KEY};
        ${more || 'reconcile 1s;'}
    }
`,
        server: `
    location = /webhook { nango_webhook prod; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session prod;
    }
    location = /status { nango_status; }
`,
    };
}


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: LONG ? 900000 : 120000 }, fn);
}


async function running(t, more, options) {
    const nango = await sim.start(t, options);
    const nginx = await create(t, settings(nango.url, more));

    /* Before nginx starts, so that the first run finds it. */

    return { nango, nginx, start: async () => {
        await nginx.start();
        await until('two workers', () => nginx.workers().length >= 2);
    } };
}


function event(operation, connection, tags, more) {
    return JSON.stringify({
        connectionId: connection, from: 'nango', operation,
        provider: 'github', providerConfigKey: 'github', success: true,
        tags, type: 'auth', ...more,
    });
}


async function webhook(nginx, body) {
    const answer = await once(nginx.port, 'POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body);

    assert.strictEqual(answer.status, 200, answer.text);
}


function put(nango, ...connections) {
    return nango.control('POST', 'state', { connections: connections
        .map(([connection, user, more]) => ({
            integration: 'github', connection_id: connection,
            tags: user ? { end_user_id: user } : {}, ...more,
        })) });
}


async function list(nginx, user) {
    const answer = await once(nginx.port, 'GET', '/connections?limit=1000',
                              { 'X-User': user || '42' });

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json.connections;
}


async function ids(nginx, user) {
    return (await list(nginx, user)).map((one) => one.connection_id).sort();
}


async function lists(nango) {
    return (await nango.control('GET', 'requests?path=/connections%3Flimit'))
        .count;
}


/* Another run from its beginning to its end. */
async function compared(nango) {
    const before = await lists(nango);

    await until('another run', async () => await lists(nango) >= before + 2,
                20000);
}


function quiet(nginx) {
    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
}


test('missing, vanished, status, tags: repaired, and signed', async (t) => {
    const { nango, nginx, start } = await running(t);

    await put(nango, ['c-1', '42'], ['c-2', '42'], ['c-3', '42']);
    await start();

    /* Not one webhook. */

    await until('what is missing', async () =>
        (await ids(nginx)).length === 3);

    await sleep(2500);
    await nango.control('POST', 'delete', { integration: 'github',
                                            connection_id: 'c-1' });
    await nango.control('POST', 'retag', { integration: 'github',
        connection_id: 'c-2', tags: { end_user_id: '43', team: 'x' } });
    await nango.control('POST', 'refresh-fail', { integration: 'github',
        connection_id: 'c-3', webhook: false });

    await until('that one has vanished', async () =>
        (await ids(nginx)).join() === 'c-3');
    await until('that one is another\'s', async () =>
        (await ids(nginx, '43')).join() === 'c-2');
    await until('that one is invalid', async () =>
        (await list(nginx))[0].status === 'invalid');

    /* Tags of none replace nothing. */

    await nango.control('POST', 'refresh-ok', { integration: 'github',
        connection_id: 'c-3', webhook: false });
    await nango.control('POST', 'retag', { integration: 'github',
        connection_id: 'c-2', tags: {} });
    await until('that one is valid', async () =>
        (await list(nginx))[0].status === 'valid');
    await compared(nango);
    assert.deepStrictEqual(await ids(nginx, '43'), ['c-2']);

    const events = bodies(t)(nginx);

    assert.ok(events.length >= 7);
    assert.ok(events.length < 12, 'repaired once, and not again and again');

    for (const one of events) {
        const body = one.bytes.toString();

        assert.strictEqual(one.source, REPAIR);
        assert.strictEqual(JSON.parse(body).from, 'nango-edge');
        assert.strictEqual(one.hmac, hmac(body, KEY));
    }

    assert.match(nginx.log(), /\[warn\].*differed from Nango/);
    quiet(nginx);
});


/* Of the events that it had none comes again. */

test('a store that is lost while nginx runs comes back', async (t) => {
    const { nango, nginx, start } = await running(t);
    const all = async () => {
        const { status, json } = await once(nginx.port, 'GET', '/connections',
                                            { 'X-User': '42' });

        return status === 200 && json.connections.length === 2;
    };

    await put(nango, ['c-1', '42'], ['c-2', '42']);
    await start();
    await until('both', all, 20000);
    await compared(nango);

    await nginx.still(() => ['log', 'state'].forEach((name) =>
        fs.rmSync(`${nginx.store}/${name}`, { recursive: true })));

    await until('them to be missed', () =>
        /\[error\].* are missing from the log/.test(nginx.log()), 20000);
    await until('both again', all, 40000);
});


test('a clock that is put back does not stop it', async (t) => {
    const { nango, nginx } = await running(t, 'reconcile 1s;');
    const clock = await startOnClock(t, nginx, { wall: true, ahead: HOUR / 2 });

    await compared(nango);
    clock.forward(-HOUR / 2);
    await compared(nango);
    quiet(nginx);
});


test('off: nothing is asked', async (t) => {
    const { nango, nginx, start } = await running(t, 'reconcile off;');

    await put(nango, ['c-1', '42']);
    await start();
    await sleep(4500);
    assert.strictEqual(await lists(nango), 0);
    assert.deepStrictEqual(await ids(nginx), []);
});


test('a deletion here holds against a list; at Nango it is asked', async (t) => {
    const { nango, nginx, start } = await running(t);

    await put(nango, ['c-1', '42'], ['c-2', '42']);
    await start();
    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await webhook(nginx, event('deletion', 'c-1', {}));

    /* Nango has it after all, and says so when it is asked. */

    await until('it is back', async () =>
        (await ids(nginx)).join() === 'c-1,c-2', 20000);
    assert.ok((await nango.control('GET', 'requests?path=/connections/c-1'))
        .count >= 1);

    /* Listed, but gone when it is asked for. */

    await nango.control('POST', 'faults', { faults: [{
        method: 'GET', path: '/connections/c-2', status: 404,
        body: { error: { code: 'not_found' } } }] });
    await webhook(nginx, event('deletion', 'c-2', {}));
    await sleep(3000);
    await compared(nango);
    assert.deepStrictEqual(await ids(nginx), ['c-1']);
    quiet(nginx);
});


test('a deletion on its way to the state is not undone', async (t) => {
    const { nango, nginx, start } = await running(t);

    await start();
    await until('a run', async () => await lists(nango) >= 1);

    const release = await hold(t, nginx, 'state');

    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await webhook(nginx, event('deletion', 'c-1', {}));
    await nango.control('POST', 'faults', { faults: [{
        method: 'GET', path: '/connections/c-1', status: 500 }] });
    await put(nango, ['c-1', '42']);

    const before = await lists(nango);

    await until('a list with it', async () => await lists(nango) > before);
    await sleep(500);
    await release();
    await compared(nango);
    assert.deepStrictEqual(await ids(nginx), []);
    quiet(nginx);
});


test('nor is one that comes into the log before a repair', async (t) => {
    const { nango, nginx, start } = await running(t);

    await put(nango, ['c-1', '42'], ['c-2', '42']);
    await start();
    await until('both', async () => (await ids(nginx)).length === 2);
    await sleep(2500);

    /* What the list will differ in, and what cannot be asked one by one. */

    await nango.control('POST', 'faults', { faults: [
        { method: 'GET', path: '/connections/c-1', status: 500 },
        { method: 'GET', path: '/connections/c-2', status: 500 }] });

    const release = await hold(t, nginx);
    const before = await lists(nango);

    const deleted = [];

    for (const one of ['c-1', 'c-2']) {
        deleted.push(webhook(nginx, event('deletion', one, {})));
    }

    await sleep(200);
    await nango.control('POST', 'retag', { integration: 'github',
        connection_id: 'c-1', tags: { end_user_id: '42', team: 'x' } });
    await nango.control('POST', 'retag', { integration: 'github',
        connection_id: 'c-2', tags: { end_user_id: '42', team: 'y' } });

    await until('lists with them', async () => await lists(nango)
        > before + 1, 20000);
    await sleep(300);
    await release();
    await Promise.all(deleted);
    assert.deepStrictEqual(await ids(nginx), []);
    await compared(nango);
    assert.deepStrictEqual(await ids(nginx), []);
    quiet(nginx);
});


test('what is deleted a second time while it is asked for', async (t) => {
    const { nango, nginx, start } = await running(t);

    await start();
    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await webhook(nginx, event('deletion', 'c-1', {}));
    await sleep(2500);
    await nango.control('POST', 'faults', { faults: [{
        method: 'GET', path: '/connections/c-1', times: 1, delay_ms: 1000,
        status: 200, body: { connection_id: 'c-1',
            provider_config_key: 'github', provider: 'github', errors: [],
            end_user: null, tags: { end_user_id: '42' } } }] });
    await put(nango, ['c-1', '42']);
    await until('it to be asked for', async () => (await nango.control('GET',
        'requests?path=/connections/c-1')).count, 20000);
    await nango.control('POST', 'delete', { integration: 'github',
                                            connection_id: 'c-1' });
    await webhook(nginx, event('deletion', 'c-1', {}, { n: 2 }));
    await sleep(1000);
    await compared(nango);
    await compared(nango);

    assert.deepStrictEqual(bodies(t)(nginx).filter((one) =>
        one.source === REPAIR), []);
    quiet(nginx);
});


test('what is confirmed while a list is on its way', async (t) => {
    const { nango, nginx, start } = await running(t);

    await put(nango, ['c-1', '42']);
    await start();
    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await sleep(2500);

    /* Of before it was authorised again, which changes nothing here. */

    await nango.control('POST', 'faults', { faults: [{
        method: 'GET', path: '/connections', times: 1,
        delay_ms: 1000, status: 200, body: { connections: [{
            connection_id: 'c-1', provider_config_key: 'github',
            provider: 'github', errors: [{ type: 'auth', log_id: 'l' }],
            end_user: null, tags: { end_user_id: '42' } }] } }] });
    await until('the list', async () =>
        (await nango.control('GET', 'faults')).faults[0].hits, 20000);
    await webhook(nginx, event('override', 'c-1', { end_user_id: '42' }));
    await sleep(1000);
    await compared(nango);

    assert.deepStrictEqual(bodies(t)(nginx).filter((one) =>
        one.source === REPAIR), []);
    quiet(nginx);
});


test('tags and status that differ are one repair', async (t) => {
    const { nango, nginx, start } = await running(t);

    await put(nango, ['c-1', '42']);
    await start();
    await until('it', async () => (await ids(nginx)).length === 1);
    await sleep(2500);

    await nango.control('POST', 'state', { connections: [{
        integration: 'github', connection_id: 'c-1',
        tags: { end_user_id: '42', team: 'x' },
        errors: [{ type: 'auth', log_id: 'l' }] }] });

    await until('the repair', async () =>
        (await list(nginx))[0].status === 'invalid', 20000);
    await compared(nango);

    const [one] = await list(nginx);

    assert.deepStrictEqual(one.tags, { end_user_id: '42', team: 'x' });
    assert.strictEqual(one.error.type, 'auth');

    const said = bodies(t)(nginx).map((body) =>
        JSON.parse(body.bytes.toString()));

    assert.deepStrictEqual(
        said.map((body) => `${body.operation} ${body.success}`),
        ['creation true', 'override false']);
    quiet(nginx);
});


test('one that is missing and broken is known as both at once', async (t) => {
    const { nango, nginx, start } = await running(t, 'reconcile 1h;');

    await put(nango, ['c-1', '42', { errors: [{ type: 'auth',
                                                log_id: 'l' }] }]);
    await start();
    await until('it', async () => (await list(nginx)).some((one) =>
        one.status === 'invalid'));

    const [one] = await list(nginx);

    assert.strictEqual(one.error.type, 'auth');

    const said = bodies(t)(nginx).map((body) =>
        JSON.parse(body.bytes.toString()));

    assert.deepStrictEqual(
        said.map((body) => `${body.operation} ${body.success}`),
        ['creation true', 'refresh false']);
    quiet(nginx);
});


test('only a 404 with Nango\'s code makes one vanish', async (t) => {
    const { nango, nginx, start } = await running(t);

    await put(nango, ['c-1', '42']);
    await start();
    await webhook(nginx, event('creation', 'c-9', { end_user_id: '42' }));
    await sleep(2000);

    for (const effect of [
        { status: 500 }, { status: 404, body: '<html>not found</html>' },
        { status: 400, body: { error: { code: 'unknown_provider_config' } } },
        { status: 200, body: { connection_id: 'c-1',
            provider_config_key: 'github', tags: {} } },
        { status: 200, body: '[]' },
    ]) {
        await nango.control('POST', 'faults', { faults: [{
            method: 'GET', path: '/connections/c-9', ...effect }] });
        await compared(nango);
        assert.ok((await ids(nginx)).includes('c-9'), JSON.stringify(effect));
    }

    await nango.control('DELETE', 'faults');
    await until('it has vanished', async () =>
        !(await ids(nginx)).includes('c-9'), 20000);
    quiet(nginx);
});


test('more than a fifth gone: nothing is touched, and it is said', async (t) => {
    const { nango, nginx, start } = await running(t);

    await put(nango, ...Array.from({ length: 30 }, (_, i) =>
        [`c-${i}`, '42']));
    await start();
    await until('all', async () => (await ids(nginx)).length === 30);
    await sleep(2500);

    for (let i = 0; i < 12; i++) {
        await nango.control('POST', 'delete', { integration: 'github',
                                                connection_id: `c-${i}` });
    }

    await until('an alarm', () => nginx.lines('crit').some((line) =>
        line.includes('12 of 30 connections of environment "prod"')));
    assert.strictEqual((await ids(nginx)).length, 30);

    /* Ten are not too many. */

    await put(nango, ['c-0', '42'], ['c-1', '42']);
    await until('that ten have vanished', async () =>
        (await ids(nginx)).length === 20, 20000);
});


test('a wrong key, a limit, silence, nonsense: nothing is lost', async (t) => {
    const { nango, nginx, start } = await running(t,
        'reconcile 1s; api_timeout 500ms;');

    await put(nango, ['c-1', '42'], ['c-2', '42']);
    await start();
    await until('both', async () => (await ids(nginx)).length === 2);
    await sleep(2500);

    for (const effect of [
        { status: 401 }, { status: 500 }, { hang: true }, { bad_json: true },
        { body: '{"connections":{}}' }, { body: '[]' }, { cut_after: 10 },
        { body: { connections: [null, 1, [], {}, { connection_id: 'x' },
            { connection_id: '\u0001', provider_config_key: 'github' },
            { connection_id: 'c-1', provider_config_key: 'github',
              tags: { end_user_id: '42' } },
            { connection_id: 'c-2', provider_config_key: 'github',
              tags: { end_user_id: '42' }, errors: 7, end_user: [] }] } },
        { status: 429, retry_after: 1, times: 1 },
    ]) {
        const { port } = nginx;

        await nango.control('POST', 'faults', { faults: [{
            method: 'GET', path: '/connections', ...effect }] });
        await until('a request', async () => (await nango.control('GET',
            'faults')).faults.some((one) => one.hits > 0), 20000);
        await sleep(300);
        assert.deepStrictEqual(await ids(nginx), ['c-1', 'c-2'],
                               JSON.stringify(effect));
        assert.ok(port);
    }

    await nango.control('DELETE', 'faults');
    await put(nango, ['c-3', '42']);
    await until('the third', async () => (await ids(nginx)).length === 3,
                40000);
    quiet(nginx);
});


/* The pages that Nango was asked for, a string a run; each has several. */
async function runs(nango) {
    const { requests } = await nango.control('GET',
        'requests?path=/connections%3Flimit');
    const all = [];

    for (const { path } of requests) {
        const [, page] = /page=(\d+)$/.exec(path);

        if (page === '0' && !/^0*$/.test(all.at(-1) || '1')) {
            all.push('');
        }

        all.push(all.pop() + page);
    }

    return all;
}


test('what failed or was refused is no comparison', async (t) => {
    const { nango, nginx, start } = await running(t);

    const told = async () => (await once(nginx.port, 'GET', '/status'))
        .json.environments[0].reconciled_at;

    const wrong = async () => {
        await nango.control('POST', 'faults', { faults: [{
            method: 'GET', path: '/connections', status: 401 }] });
        await until('two tries', async () => (await nango.control('GET',
            'faults')).faults[0].hits > 1, 20000);
    };

    await put(nango, ...Array.from({ length: 30 }, (_, i) =>
        [`c-${i}`, '42']));

    const started = wrong();

    await start();
    await started;
    assert.strictEqual(await told(), null);

    await nango.control('DELETE', 'faults');
    await until('one', told, 20000);
    assert.strictEqual((await once(nginx.port, 'GET', '/status'))
        .json.environments[0].reconcile, 1);

    await wrong();

    const before = await told();

    await wrong();
    assert.strictEqual(await told(), before);

    for (let i = 0; i < 12; i++) {
        await nango.control('POST', 'delete', { integration: 'github',
                                                connection_id: `c-${i}` });
    }

    await sleep(2500);
    await nango.control('DELETE', 'faults');
    await until('an alarm', () => nginx.lines('crit').some((line) =>
        line.includes('are not in Nango\'s list')), 20000);
    assert.strictEqual(await told(), before);
});


test('another environment\'s key: nothing is added or removed', async (t) => {
    const { nango, nginx, start } = await running(t);
    const mine = Array.from({ length: 30 }, (_, i) => [`c-${i}`, '42']);
    const others = Array.from({ length: 250 }, (_, i) => [`x-${i}`, '42']);
    const read = reader(t);
    const events = () => read(nginx.store, 'meta').meta.last;

    await put(nango, ...mine);
    await start();
    await until('all', async () => (await ids(nginx)).length === 30);
    await sleep(2500);

    const before = events();

    await nango.control('POST', 'reset', {});
    await put(nango, ...others);

    const asked = () => nango.control('GET', 'requests?path=/connections/')
        .then((answer) => answer.count);
    const alarms = () => nginx.lines('crit').filter((line) =>
        line.includes('30 of 30 connections of environment "prod" are not in '
                      + 'Nango\'s list; nothing is changed')).length;

    await until('two alarms', () => alarms() >= 2, 20000);
    assert.strictEqual((await ids(nginx)).length, 30);
    assert.strictEqual(events(), before, 'there are repairs');
    assert.strictEqual(await asked(), 0);

    /* And when it is put right, it is compared as ever. */

    await nango.control('POST', 'reset', {});
    await put(nango, ...mine, ['c-30', '42']);
    await until('the new one', async () => (await ids(nginx)).length === 31,
                20000);
    assert.deepStrictEqual((await ids(nginx)).filter((id) => /^x/.test(id)),
                           []);
    assert.deepStrictEqual(nginx.lines('alert', 'emerg'), []);
});


test('a page is asked for twice only if it differs', async (t) => {
    const { nango, nginx, start } = await running(t, 'reconcile 2s;');
    const more = async (n) => {
        const before = (await runs(nango)).length;

        await until('more runs', async () =>
            (await runs(nango)).length > before + n, 30000);

        return (await runs(nango)).slice(before, -1);
    };

    await nango.control('POST', 'connections/bulk', {
        count: 700, integration: 'github', owners: 700,
        tags: { end_user_id: 'u-{n}' } });
    await start();

    /* From none at all, and when nothing differs: each page once. */

    await until('the first', async () => (await runs(nango)).length >= 2,
                30000);
    assert.strictEqual(reader(t)(nginx.store, 'meta').meta.valid, 700);
    assert.match((await runs(nango))[0], /^0+1+2+3+$/);
    assert.deepStrictEqual(await more(2), ['0123', '0123']);

    /* The oldest is on the last page. */

    const oldest = (await nango.control('GET', 'state?limit=1000'))
        .connections[699];

    await nango.control('POST', 'retag', { integration: 'github',
        connection_id: oldest.connection_id, tags: { end_user_id: '42' } });
    await until('its new owner', async () =>
        (await ids(nginx)).join() === oldest.connection_id, 20000);
    await until('the end of this run', async () =>
        (await runs(nango)).includes('01233'), 5000);
    assert.deepStrictEqual(await more(1), ['0123']);
    quiet(nginx);
});


test('less than a quarter of the budget is left alone', async (t) => {
    const { nango, nginx, start } = await running(t);

    await nango.control('POST', 'settings', { rate_limit: 20 });
    await put(nango, ['c-1', '42']);
    await start();
    await until('one', async () => (await ids(nginx)).length === 1);
    await until('little to be left', async () =>
        (await once(nginx.port, 'GET', '/status')).json.environments[0]
            .account_low, 20000);
    await sleep(6000);

    /* 15 of 20 are spent, and the rest is for people. */

    const spent = await lists(nango);

    assert.ok(spent >= 14 && spent <= 17, `${spent} requests`);

    const answer = await once(nginx.port, 'POST', '/session',
                              { 'X-User': '42' });

    assert.strictEqual(answer.status, 200, answer.text);
});


test('a tenth of all webhooks lost, and silent changes', async (t) => {
    const { nango, nginx, start } = await running(t, 'reconcile 2s;', {
        settings: { webhook_drop: 0.1 }, signingKey: KEY });

    await start();
    await nango.control('POST', 'settings', {
        webhook_url: `http://127.0.0.1:${nginx.port}/webhook`,
        breaker: false });

    for (let i = 0; i < 60; i++) {
        const session = await sim.session(nango, {
            tags: { end_user_id: String(i % 3) },
            allowed_integrations: ['github'] });

        await nango.control('POST', 'connect', { token: session });
    }

    const state = await nango.control('GET', 'state?limit=1000');
    const mine = state.connections;

    for (let i = 0; i < 60; i += 10) {
        await nango.control('POST', 'delete', { integration: 'github',
            connection_id: mine[i].connection_id });
        await nango.control('POST', 'retag', { integration: 'github',
            connection_id: mine[i + 1].connection_id,
            tags: { end_user_id: '2', team: 'new' } });
        await nango.control('POST', 'refresh-fail', { integration: 'github',
            connection_id: mine[i + 2].connection_id, webhook: false });
    }

    /* Its new key is not known here. */

    await nango.control('POST', 'state', { signing_key: 'another' });

    for (let i = 0; i < 10; i++) {
        const session = await sim.session(nango, {
            tags: { end_user_id: '1' }, allowed_integrations: ['github'] });

        await nango.control('POST', 'connect', { token: session });
    }

    const there = (await nango.control('GET', 'state?limit=1000')).connections
        .map((one) => [one.connection_id, JSON.stringify(
            Object.entries(one.tags).sort()),
            one.errors.some((e) => e.type === 'auth') ? 2 : 1].join(' '))
        .sort();
    const read = reader(t);

    assert.strictEqual(there.length, 64);

    await until('the same here as there', async () => {
        const here = read(nginx.store).connections
            .filter((one) => one.status !== 3)
            .map((one) => [one.connection_id, JSON.stringify(
                Object.entries(one.tags).sort()), one.status].join(' '))
            .sort();

        return JSON.stringify(here) === JSON.stringify(there);
    }, 30000);

    /* What was repaired is counted: each repair is an event. */

    const repairs = bodies(t)(nginx).filter((one) => one.source === REPAIR);
    const told = () => nginx.lines('warn')
        .filter((line) => line.includes('differed from Nango'))
        .flatMap((line) => / (\d+) were .* (\d+) had v.* (\d+) had a.* (\d+) o/
            .exec(line).slice(1))
        .reduce((sum, n) => sum + Number(n), 0);

    assert.ok(repairs.length >= 10 + 3 * 6);
    await until('all to be told', () => told() === repairs.length);
    quiet(nginx);
});


test('a leader killed in the middle; rows come and go meanwhile', async (t) => {
    const { nango, nginx, start } = await running(t);
    const count = LONG ? 100000 : 2000;

    await nango.control('POST', 'settings', { rate_limit: 10000000 });
    await nango.control('POST', 'connections/bulk', {
        count, integration: 'github', owners: count,
        tags: { end_user_id: 'u-{n}' } });
    await start();

    await until('a page', async () => await lists(nango) >= 3, 20000);
    nginx.kill(nginx.leader(), 'SIGKILL');

    for (let i = 0; i < 20; i++) {
        const { connections } = await nango.control('GET', 'state?limit=1');

        await nango.control('POST', 'delete', { integration: 'github',
            connection_id: connections[0].connection_id });
        await put(nango, [`new-${i}`, '42', { created: '2020-01-01' }]);
        await sleep(20);
    }

    const read = reader(t);
    const live = () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.valid + meta.invalid;
    };

    /* Looked at now and then: each look takes a place among the readers. */

    await until('all of them', async () => {
        await sleep(500);
        return live() === count;
    }, LONG ? 600000 : 60000);
    assert.deepStrictEqual((await ids(nginx)).length, 20);

    if (LONG) {
        const rss = (pid) => Number(/VmRSS:\s+(\d+)/.exec(
            fs.readFileSync(`/proc/${pid}/status`, 'latin1'))[1]);
        const size = () => fs.statSync(`${nginx.store}/state/data.mdb`).blocks;
        const before = [rss(nginx.leader()), size()];

        for (let i = 0; i < 3; i++) {
            const from = await lists(nango);

            await until('a whole run', async () => await lists(nango)
                        >= from + count / 200 + 1, 300000);
        }

        const after = [rss(nginx.leader()), size()];

        t.diagnostic(`leader's RSS ${before[0]} to ${after[0]} kB, state `
                     + `${before[1]} to ${after[1]} blocks`);
        assert.ok(after[1] <= before[1] * 1.2 + 1000, 'the state grows');
    }

    assert.deepStrictEqual(nginx.lines('crit', 'emerg'), []);
});


test('two environments of the same Nango', async (t) => {
    const nango = await sim.start(t);
    const options = settings(nango.url);
    const nginx = await create(t, { ...options, http: options.http
        + options.http.slice(options.http.indexOf('nango_environment'))
            .replace('nango_environment prod', 'nango_environment dev') });

    await put(nango, ['c-1', '42']);
    await nginx.start();

    const read = reader(t);

    await until('both', () => {
        try {
            return read(nginx.store).connections.map((one) => one.environment)
                .sort().join() === 'dev,prod';
        } catch (err) {
            return false;
        }
    });
    quiet(nginx);
});


/* Accepts, takes what it is asked, and says nothing until it is told to. */
async function silent(t) {
    const sockets = new Set();
    const nango = { asked: 0 };
    const server = net.createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => sockets.delete(socket));
        socket.on('data', () => { nango.asked++; });
    });

    nango.say = (text) => sockets.forEach((socket) => socket.write(
        'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
        + `Content-Length: ${text.length}\r\n\r\n${text}`));

    await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });

    t.after(() => {
        server.close();
        sockets.forEach((socket) => socket.destroy());
    });

    nango.url = `http://127.0.0.1:${server.address().port}`;

    return nango;
}


/* Another environment, whose Nango may take its time. */
function beside(api, other, more) {
    const options = settings(api, more);
    const prod = options.http.slice(options.http.indexOf('nango_environment'));

    return { ...options, http: options.http
        + prod.replace('nango_environment prod', 'nango_environment slow')
            .replace(api, other)
            .replace(/reconcile \w+;/, '$& api_timeout 1h;') };
}


test('a list that does not come holds up no other environment', async (t) => {
    const hangs = await silent(t);
    const nango = await sim.start(t);
    const nginx = await create(t, beside(nango.url, hangs.url));

    await nginx.start();
    await until('the other to be asked', () => hangs.asked);
    await put(nango, ['c-1', '42']);
    await until('the repair', async () =>
        (await ids(nginx)).join() === 'c-1', 20000);
    assert.strictEqual(hangs.asked, 1);
    quiet(nginx);
});


test('events are missing: also what is being compared is, again', async (t) => {
    const hangs = await silent(t);
    const nango = await sim.start(t);
    const nginx = await create(t, beside(nango.url, hangs.url,
                                         'reconcile 1h;'));

    await nginx.start();
    await until('the one', async () => await lists(nango) >= 1);
    await until('the other', () => hangs.asked);

    const release = await hold(t, nginx, 'state');

    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await webhook(nginx, event('creation', 'c-2', { end_user_id: '42' }));
    execFileSync(compile(t, 'forget.c', '-llmdb'), [nginx.store, '1']);
    await release();

    await until('the one again', async () => await lists(nango) >= 2, 20000);
    assert.ok(nginx.log().includes('are missing from the log'));
    assert.strictEqual(hangs.asked, 1);

    hangs.say('{"connections":[]}');
    await until('the other again', () => hangs.asked === 2, 20000);
    quiet(nginx);
});


test('events are missing, and who has found that dies at once', async (t) => {
    const nango = await sim.start(t);
    const nginx = await create(t, { ...settings(nango.url, 'reconcile 1h;'),
                                    workers: 1 });

    await nginx.start();
    await until('a run', async () => await lists(nango) >= 1, 20000);

    const release = await hold(t, nginx, 'state');
    const first = nginx.leader();

    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await webhook(nginx, event('creation', 'c-2', { end_user_id: '42' }));
    execFileSync(compile(t, 'forget.c', '-llmdb'), [nginx.store, '1']);

    /* One that has just started does not compare yet. */

    nginx.kill(first, 'SIGKILL');

    const second = await until('another worker', () =>
        nginx.workers().find((pid) => pid !== first));

    await release();
    await until('that it finds it', () =>
        nginx.log().includes('are missing from the log'));
    nginx.kill(second, 'SIGKILL');

    await until('another run', async () => await lists(nango) >= 2, 20000);
    assert.deepStrictEqual(nginx.lines('crit', 'emerg'), []);
});


test('a list that does not come keeps no worker from exiting', async (t) => {
    const hangs = await silent(t);
    const nginx = await create(t, settings(hangs.url,
                                           'reconcile 1s; api_timeout 1h;'));

    await nginx.start();
    await until('the list to be asked for', () => hangs.asked);

    const before = nginx.workers();

    nginx.kill(nginx.master, 'SIGHUP');
    await until('the old workers to be gone', () =>
        !before.some((pid) => nginx.alive(pid)), 20000);
    quiet(nginx);
});
