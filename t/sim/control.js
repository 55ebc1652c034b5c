/*
 * The control interface under /_sim/: what a test, a demo or a benchmark does
 * to the simulated Nango, and what it reads of it.  No authentication; JSON
 * in, JSON out; a mistake in a command is answered with 400 and a reason,
 * never passed over.  Commands that send a webhook answer with the number of
 * its delivery, and with the finished delivery if "wait" is true.
 */

'use strict';

const flow = require('./flow');
const reply = require('./reply');
const { listed } = require('./state');

const MAX_WAIT = 60000;
const MAX_BULK = 1000000;


class Mistake extends Error {}


function need(body, name) {
    if (body[name] === undefined) {
        throw new Mistake(`"${name}" is missing`);
    }

    return body[name];
}


function only(body, ...names) {
    for (const name of Object.keys(body)) {
        if (!names.includes(name)) {
            throw new Mistake(`unknown member "${name}"`);
        }
    }
}


function theConnection(sim, body) {
    const connection = sim.state.connection(need(body, 'integration'),
                                            need(body, 'connection_id'));

    if (!connection) {
        throw new Mistake('no such connection');
    }

    return connection;
}


function theIntegration(sim, id) {
    const integration = sim.state.integrations.get(id);

    if (!integration) {
        throw new Mistake(`no such integration: "${id}"`);
    }

    return integration;
}


/*
 * Runs an act that may send a webhook.  act(then) returns {webhook, ...};
 * what else it returns becomes the answer.
 */
async function acting(wait, act) {
    let finish;
    const finished = new Promise((resolve) => {
        finish = resolve;
    });
    const { webhook, ...answer } = act(finish);

    if (!webhook) {
        return { ...answer, webhook: null };
    }

    return {
        ...answer,
        webhook: webhook.id,
        delivery: wait && webhook.outcome === 'pending' ? await finished
                                                        : undefined,
    };
}


function connectionAnswer({ connection, operation, webhook }) {
    return {
        connection_id: connection.connection_id,
        provider_config_key: connection.integration,
        operation,
        webhook,
    };
}


function connect(sim, body) {
    only(body, 'token', 'integration', 'connection_id', 'id', 'credentials',
         'connection_config', 'metadata', 'created', 'created_micros', 'wait');
    need(body, 'token');

    return acting(body.wait, (then) =>
        connectionAnswer(flow.connect(sim, { ...body, then })));
}


function deny(sim, body) {
    only(body, 'token', 'integration', 'connection_id', 'error', 'wait');
    need(body, 'token');

    return acting(body.wait, (then) =>
        connectionAnswer(flow.deny(sim, { ...body, then })));
}


function refreshFail(sim, body) {
    only(body, 'integration', 'connection_id', 'operation', 'error', 'status',
         'repeat', 'webhook', 'wait');

    const connection = theConnection(sim, body);

    return acting(body.wait, (then) =>
        ({ webhook: flow.fail(sim, connection, { ...body, then }) }));
}


function refreshOk(sim, body) {
    only(body, 'integration', 'connection_id', 'webhook', 'wait');

    const connection = theConnection(sim, body);

    return acting(body.wait, (then) =>
        ({ webhook: flow.recover(sim, connection, { ...body, then }) }));
}


function remove(sim, body) {
    only(body, 'integration', 'connection_id', 'webhook', 'wait');

    const connection = theConnection(sim, body);

    return acting(body.wait, (then) =>
        ({ webhook: flow.remove(sim, connection, { ...body, then }) }));
}


function retag(sim, body) {
    only(body, 'integration', 'connection_id', 'tags');
    sim.state.setTags(theConnection(sim, body), need(body, 'tags'));

    return {};
}


function sync(sim, body) {
    only(body, 'integration', 'connection_id', 'sync', 'variant', 'model',
         'kind', 'added', 'updated', 'deleted', 'checkpoints', 'error', 'at');

    const connection = theConnection(sim, body);
    const { integration, connection_id: id, ...values } = body;
    const record = sim.events.sync(connection, values);

    return { webhook: record && record.id };
}


function asyncAction(sim, body) {
    only(body, 'integration', 'connection_id', 'payload');

    const record = sim.events.asyncAction(theConnection(sim, body),
                                          need(body, 'payload'));

    return { webhook: record && record.id };
}


/* Without connection_ids the provider's payload goes out as it is. */
function forward(sim, body) {
    only(body, 'integration', 'connection_ids', 'payload', 'headers');

    const integration = theIntegration(sim, need(body, 'integration'));
    const connections = (body.connection_ids || []).map((id) =>
        theConnection(sim, { integration: integration.id,
                             connection_id: id }));
    const records = sim.events.forward(integration, connections,
                                       need(body, 'payload'), body.headers);

    return { webhooks: records.map((record) => record && record.id) };
}


/*
 * Any bytes at all as a webhook: raw is sent as it is.  hmac replaces the
 * signature (null leaves the header out), key signs with another key.
 */
function send(sim, body) {
    only(body, 'raw', 'headers', 'hmac', 'hash', 'key', 'override', 'wait');

    const signatures = {};

    for (const name of ['hmac', 'hash']) {
        if (body[name] !== undefined) {
            signatures[name] = body[name];
        }
    }

    return acting(body.wait, (then) => ({
        webhook: sim.events.send(String(need(body, 'raw')), {
            before: body.headers,
            override: body.override,
            describe: { type: 'raw' },
            signatures,
            key: body.key,
            then,
        }),
    }));
}


/* {"faults": [...]} replaces them, {"add": {...}} adds one. */
function setFaults(sim, body) {
    only(body, 'faults', 'add', 'webhook_drop', 'webhook_duplicate');

    try {
        if (body.faults) {
            sim.faults.clear();
            body.faults.forEach((fault) => sim.faults.add(fault));
        }

        if (body.add) {
            sim.faults.add(body.add);
        }
    } catch (e) {
        throw new Mistake(e.message);
    }

    for (const name of ['webhook_drop', 'webhook_duplicate']) {
        if (body[name] !== undefined) {
            sim.settings[name] = body[name];
        }
    }

    return { faults: sim.faults.list };
}


function clearFaults(sim) {
    sim.faults.clear();
    sim.settings.webhook_drop = 0;
    sim.settings.webhook_duplicate = 0;

    return {};
}


function requests(sim, body, query) {
    const list = sim.recorder.list({
        since: Number(query.get('since')) || 0,
        method: query.get('method'),
        path: query.get('path'),
    });

    return { count: list.length, requests: list };
}


/* ?wait=1: once nothing is under way any more (or after a minute). */
async function webhooks(sim, body, query) {
    if (query.get('wait')) {
        await new Promise((resolve) => {
            const timer = setTimeout(resolve, MAX_WAIT);

            sim.deliveries.whenIdle(() => {
                clearTimeout(timer);
                resolve();
            });
        });
    }

    const since = Number(query.get('since')) || 0;

    return {
        under_way: sim.deliveries.underWay,
        breaker: sim.deliveries.breaker.view(),
        webhooks: sim.deliveries.list().filter((one) => one.id > since),
    };
}


function getState(sim, body, query) {
    const { state } = sim;
    const limit = Number(query.get('limit')) || 100;

    return {
        now: new Date(sim.clock.now()).toISOString(),
        settings: sim.settings,
        api_keys: [...state.apiKeys],
        signing_key: state.signingKey,
        previous_signing_key: state.previousSigningKey,
        integrations: [...state.integrations.values()],
        counts: {
            connections: state.connections.size,
            sessions: state.sessions.size,
            webhooks: sim.deliveries.lastId,
            requests: sim.recorder.lastId,
        },
        connections: state.list({ limit }).map(listed),
        sessions: [...state.sessions.values()].slice(-limit)
            .map(({ reconnect, ...session }) => ({
                ...session,
                reconnect: reconnect && reconnect.connection_id,
            })),
    };
}


/*
 * Puts things there as they are, without webhooks: connections with fixed
 * ids and dates, integrations, keys, the values that come next.
 */
function putState(sim, body) {
    only(body, 'connections', 'integrations', 'api_keys', 'signing_key',
         'next');

    for (const integration of body.integrations || []) {
        need(integration, 'id');
        sim.state.addIntegration(integration);
    }

    for (const connection of body.connections || []) {
        sim.state.addConnection(
            theIntegration(sim, need(connection, 'integration')), connection);
    }

    if (body.api_keys) {
        sim.state.apiKeys = new Set(body.api_keys);
    }

    if (body.signing_key) {
        sim.state.previousSigningKey = sim.state.signingKey;
        sim.state.signingKey = body.signing_key;
    }

    for (const [name, values] of Object.entries(body.next || {})) {
        if (!sim.state.next[name]) {
            throw new Mistake(`unknown member "next.${name}"`);
        }

        sim.state.next[name].push(...values);
    }

    return {};
}


function putSettings(sim, body) {
    only(body, ...Object.keys(sim.settings));
    Object.assign(sim.settings, body);

    return sim.settings;
}


function putClock(sim, body) {
    only(body, 'now', 'frozen', 'advance_ms', 'speed', 'retry_speed');

    if (body.now !== undefined) {
        sim.clock.set(Date.parse(body.now), body.frozen);
    }

    if (body.advance_ms !== undefined) {
        sim.clock.advance(body.advance_ms);
    }

    if (body.speed !== undefined) {
        sim.clock.setSpeed(body.speed);
    }

    if (body.retry_speed !== undefined) {
        sim.deliveries.clock.setSpeed(body.retry_speed);
    }

    return { now: new Date(sim.clock.now()).toISOString() };
}


/*
 * Many connections at once, no webhooks.  They belong to "owners" owners in
 * turn; {n} in a tag's value is the number of the connection, {owner} that of
 * its owner.
 */
function bulk(sim, body) {
    only(body, 'count', 'owners', 'integration', 'tags', 'first');

    const integration = theIntegration(sim, need(body, 'integration'));
    const count = need(body, 'count');
    const owners = body.owners || count;
    const first = body.first || 0;
    const tags = body.tags || { end_user_id: 'user-{owner}' };

    if (!Number.isInteger(count) || count < 0 || count > MAX_BULK) {
        throw new Mistake(`"count" must be from 0 to ${MAX_BULK}`);
    }

    const made = [];

    for (let n = first; n < first + count; n++) {
        const own = {};

        for (const [key, value] of Object.entries(tags)) {
            own[key] = value.replace('{n}', n)
                .replace('{owner}', n % owners);
        }

        made.push(sim.state.addConnection(integration, { tags: own })
            .connection_id);
    }

    return { count: made.length,
             connection_ids: made.length <= 1000 ? made : undefined };
}


function reset(sim) {
    sim.reset();

    return {};
}


const COMMANDS = {
    'POST connect': connect,
    'POST deny': deny,
    'POST refresh-fail': refreshFail,
    'POST refresh-ok': refreshOk,
    'POST delete': remove,
    'POST retag': retag,
    'POST sync': sync,
    'POST async-action': asyncAction,
    'POST forward': forward,
    'POST send': send,
    'POST faults': setFaults,
    'GET faults': (sim) => ({ faults: sim.faults.list }),
    'DELETE faults': clearFaults,
    'GET requests': requests,
    'GET webhooks': webhooks,
    'GET state': getState,
    'POST state': putState,
    'POST settings': putSettings,
    'POST clock': putClock,
    'POST connections/bulk': bulk,
    'POST reset': reset,
};


/* req as for the API; path is what follows /_sim/. */
async function handle(sim, req) {
    const url = new URL(req.url, 'http://sim');
    const name = `${req.method} ${url.pathname.slice('/_sim/'.length)}`;
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : null;

    if (!command) {
        return reply.error(404, 'unknown_command',
            `no such command; there are: ${Object.keys(COMMANDS).join(', ')}`);
    }

    try {
        const text = req.body.toString('utf8');
        const body = text === '' ? {} : JSON.parse(text);

        return reply.json(200, await command(sim, body, url.searchParams));

    } catch (e) {
        if (e instanceof flow.Refused) {
            return reply.error(e.status, e.code, e.message);
        }

        if (e instanceof Mistake || e instanceof SyntaxError) {
            return reply.error(400, 'bad_command', e.message);
        }

        throw e;
    }
}


module.exports = { handle };
