/*
 * The life of one connection from its first session to replays after its end:
 * a Nango that sends its own webhooks, two workers, a reload in the middle.
 */

'use strict';

const assert = require('node:assert');
const nodeTest = require('node:test');

const sim = require('../sim/helper');
const { API_KEY } = require('../sim/nango');
const { Client, ofWorkers, once } = require('./client');
const { create, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const ME = { 'X-User': '42' };
const JSON_OF_ME = { ...ME, 'Content-Type': 'application/json' };
const OTHER = { 'X-User': '43' };

/* Repeats are no duplicates here: what is old must not be believed anew. */

const HTTP = `
    nango_store @STORE@;
    nango_environment prod {
        api                 @API@;
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:${API_KEY};
        webhook_signing_key data:${KEY};
        reconcile           off;
        dedupe              1ms;
    }
`;

const SERVER = `
    location = /webhook { nango_webhook; }
    location = /worker  { return 200 $pid; }
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_tag   end_user_email $http_x_user@example.com;
        nango_session;
    }
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_reconnect;
    }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections;
    }
    location = /app {
        nango_owner   end_user_id $http_x_user;
        nango_require github;
        proxy_set_header X-Connection $nango_connection_id;
        proxy_pass    http://127.0.0.1:@PORT@/backend;
    }
    location = /backend { return 200 "backend got $http_x_connection"; }
`;


async function running(t, reconcile) {
    const nango = await sim.start(t, { signingKey: KEY,
                                       settings: { breaker: false } });
    const nginx = await create(t, { server: SERVER,
        http: HTTP.replace('@API@', nango.url)
            .replace('off;', `${reconcile || 'off'};`) });

    await nginx.start();
    await until('two workers', () => nginx.workers().length >= 2);

    if (!reconcile) {
        await nango.control('POST', 'settings', {
            webhook_url: `http://127.0.0.1:${nginx.port}/webhook` });
    }

    return { nango, nginx };
}


/* The list on that client, once it has changed since then. */
function poll(client, since) {
    const answer = client.request('GET',
        `/connections?since=${since}&wait=25`, ME);

    answer.catch(() => {});

    return answer;
}


async function change(answer) {
    const { status, text, json } = await answer;

    assert.strictEqual(status, 200, text);
    assert.strictEqual(json.changed, true);

    return json;
}


async function app(all, headers) {
    const answers = await Promise.all(all.map((client) =>
        client.request('GET', '/app', headers || ME)));

    assert.strictEqual(answers[0].text, answers[1].text);

    return answers[0];
}


/* What Nango has sent, all of it answered well. */
async function sent(nango) {
    const { webhooks } = await nango.control('GET', 'webhooks?wait=1');

    assert.deepStrictEqual(webhooks.map((one) => one.outcome),
                           webhooks.map(() => 'delivered'));

    return webhooks;
}


nodeTest('a connection\'s whole life', { timeout: 120000 }, async (t) => {
    const { nango, nginx } = await running(t);
    let [one, two] = await ofWorkers(t, nginx.port);

    /* Connect; a page that waits on either worker is told. */

    assert.strictEqual((await app([one, two])).status, 404);

    let session = await one.request('POST', '/session', JSON_OF_ME,
                                    '{"integration":"github"}');

    assert.strictEqual(session.status, 200, session.text);

    const { sequence } = (await one.request('GET', '/connections', ME)).json;
    let waiting = [poll(one, sequence), poll(two, sequence)];

    const { connection_id: id } = await nango.control('POST', 'connect', {
        token: session.json.sessionToken, wait: true });
    let lists = await Promise.all(waiting.map(change));
    const { tags } = lists[0].connections[0];

    assert.deepStrictEqual(lists[0], lists[1]);
    assert.deepStrictEqual(lists[0].connections.map((c) =>
        [c.connection_id, c.status]), [[id, 'valid']]);
    assert.deepStrictEqual(tags, { end_user_id: '42',
                                   end_user_email: '42@example.com' });

    /* Requests know it. */

    const opaque = lists[0].connections[0].id;
    const passes = async () => {
        const answer = await app([one, two]);

        assert.strictEqual(answer.status, 200, answer.text);
        assert.strictEqual(answer.text, `backend got ${id}`);
        assert.strictEqual((await app([one, two], OTHER)).status, 404);
    };
    const gone = async () => {
        const answer = await app([one, two]);

        assert.strictEqual(answer.status, 404, answer.text);
        assert.strictEqual(answer.json.error.code, 'connection_not_found');
    };

    await passes();

    /* Its refresh fails, while nginx reloads. */

    const old = nginx.workers();

    waiting = poll(one, lists[0].sequence);
    nginx.kill(nginx.master, 'SIGHUP');
    await nango.control('POST', 'refresh-fail', {
        integration: 'github', connection_id: id, wait: true });

    /* The old worker may have answered before it heard of that. */

    const { json } = await waiting;

    await until('the old workers to end',
                () => !old.some((pid) => nginx.alive(pid)), 20000);
    [one, two] = await ofWorkers(t, nginx.port);
    lists = json.changed ? json : await change(poll(two, json.sequence));
    assert.strictEqual(lists.connections[0].status, 'invalid');

    const refused = await app([one, two]);

    assert.strictEqual(refused.status, 409, refused.text);
    assert.strictEqual(refused.json.error.code, 'connection_invalid');
    assert.strictEqual(refused.json.id, opaque);

    /* Reconnected by its owner only, with the tags that are stored. */

    const again = JSON.stringify({ id: refused.json.id });

    assert.strictEqual((await one.request('POST', '/reconnect',
        { ...JSON_OF_ME, ...OTHER }, again)).status, 404);
    session = await one.request('POST', '/reconnect', JSON_OF_ME, again);
    assert.strictEqual(session.status, 200, session.text);

    const { requests } = await nango.control('GET',
        'requests?path=/connect/sessions/reconnect');

    assert.deepStrictEqual(requests.map((r) => {
        const body = JSON.parse(r.body);

        return [body.connection_id, body.tags];
    }), [[id, tags]]);

    waiting = poll(two, lists.sequence);
    await nango.control('POST', 'connect', {
        token: session.json.sessionToken, wait: true });
    lists = await change(waiting);
    assert.strictEqual(lists.connections[0].status, 'valid');
    await passes();

    /* An override by somebody who sends no tags takes it from nobody. */

    const bare = await sim.call(nango, 'POST', '/connect/sessions/reconnect',
        { connection_id: id, integration_id: 'github' });

    assert.strictEqual(bare.status, 201, bare.text);
    await nango.control('POST', 'connect', { token: bare.json.data.token,
                                             wait: true });
    lists = (await one.request('GET', '/connections', ME)).json;
    assert.deepStrictEqual(lists.connections.map((c) =>
        [c.id, c.status, c.tags]), [[opaque, 'valid', tags]]);
    await passes();

    /* Deleted, there and here. */

    waiting = poll(two, lists.sequence);
    assert.strictEqual((await one.request('DELETE',
        `/connections?id=${opaque}`, ME)).status, 200);
    lists = await change(waiting);
    assert.deepStrictEqual(lists.connections, []);
    assert.deepStrictEqual((await nango.control('GET', 'state')).connections,
                           []);
    await gone();

    /* What was sent before, sent again, byte for byte: accepted, believed by
       nobody. */

    const webhooks = await sent(nango);

    assert.deepStrictEqual(webhooks.map((w) => [w.operation, w.success]), [
        ['creation', true], ['refresh', false], ['override', true],
        ['override', true]]);
    assert.deepStrictEqual(JSON.parse(webhooks[3].body).tags, {});

    let { sequence: last } = lists;

    for (const { body, signatures } of webhooks) {
        const answer = await once(nginx.port, 'POST', '/webhook', {
            'Content-Type': 'application/json',
            'X-Nango-Hmac-Sha256': signatures.hmac,
        }, body);

        assert.strictEqual(answer.status, 200, answer.text);
        assert.strictEqual(answer.json.duplicate, undefined);
        assert.ok(answer.json.sequence > last);
        last = answer.json.sequence;

        lists = (await two.request('GET', '/connections', ME)).json;
        assert.ok(lists.sequence >= last);
        assert.deepStrictEqual(lists.connections, []);
        await gone();
    }

    assert.deepStrictEqual(nginx.lines('error', 'alert', 'crit', 'emerg'), []);
});


/* As on a laptop, where Nango's webhooks do not arrive. */

nodeTest('all of it without a webhook', { timeout: 120000 }, async (t) => {
    const { nango, nginx } = await running(t, '1s');
    const clients = [new Client(nginx.port), new Client(nginx.port)];
    const [one] = clients;
    const becomes = (status) => until(`${status}`, async () =>
        (await app(clients)).status === status, 30000);
    const connect = async (url, body) => {
        const answer = await one.request('POST', url, JSON_OF_ME, body);

        assert.strictEqual(answer.status, 200, answer.text);

        return nango.control('POST', 'connect',
                             { token: answer.json.sessionToken });
    };

    t.after(() => clients.forEach((client) => client.close()));
    assert.strictEqual((await app(clients)).status, 404);

    const { sequence } = (await one.request('GET', '/connections', ME)).json;
    const { connection_id: id } = await connect('/session',
                                                '{"integration":"github"}');
    const list = await change(poll(one, sequence));

    assert.deepStrictEqual(list.connections.map((c) => c.connection_id), [id]);
    assert.strictEqual((await app(clients)).text, `backend got ${id}`);

    await nango.control('POST', 'refresh-fail', {
        integration: 'github', connection_id: id, webhook: false });
    await becomes(409);
    await connect('/reconnect', '{"integration":"github"}');
    await becomes(200);
    await nango.control('POST', 'delete', {
        integration: 'github', connection_id: id });
    await becomes(404);

    assert.deepStrictEqual((await nango.control('GET', 'webhooks')).webhooks,
                           []);
    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
});
