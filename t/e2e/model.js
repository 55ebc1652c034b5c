/*
 * The state as a fold of the log, written from the tables of
 * docs/internals.md and not from the module's code, and the log's own reader.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const STATUS = { valid: 1, invalid: 2, deleted: 3 };
const TYPES = ['other', 'auth', 'sync', 'async_action', 'forward'];
const OPERATIONS = ['none', 'creation', 'override', 'refresh', 'deletion',
                    'other'];
const NO_HMAC = '0'.repeat(64);


/* What was built, by what it was built from. */
const programs = new Map();

process.on('exit', () => programs.forEach((program) =>
    fs.rmSync(path.dirname(program), { recursive: true, force: true })));


/*
 * Builds a program of this directory, once for all tests of a process, and not
 * for t alone; where it is.
 */
function compile(t, source, ...options) {
    const from = [source, ...options].join('\n');

    if (!programs.has(from)) {
        const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nango-e2e-'));
        const program = path.join(dir, path.basename(source, '.c'));

        programs.set(from, program);

        execFileSync('cc', ['-O1', '-Wall', '-Wextra', '-Werror', '-o', program,
                            path.join(__dirname, source), ...options]);
    }

    return programs.get(from);
}


/* The log's reader; read(store, only) gives {events, connections, meta}. */
function reader(t) {
    const program = compile(t, 'logdump.c', '-llmdb');

    return (store, only) => {
        const text = execFileSync(program, only ? [store, only] : [store],
                                  { maxBuffer: 1 << 30, encoding: 'utf8' });
        const rows = text.trim().split('\n').map((line) => JSON.parse(line));
        const of = (kind) => rows.filter((row) => row.kind === kind);

        return { events: of('event'), connections: of('connection'),
                 subscribers: of('subscriber'),
                 environments: of('environment'), due: of('due'),
                 meta: of('meta')[0] };
    };
}


function name(c) {
    return [c.environment, c.integration, c.connection_id].join('\n');
}


/*
 * events: the log's, in order.  bodies: from HMACs to what was sent.  The
 * connections by their names, and counts.
 */
function fold(events, bodies) {
    const connections = new Map();
    const counts = { events: 0, effective: 0, ignored: 0 };

    for (const event of events) {
        const body = bodies.get(event.hmac);
        const before = connections.get(name(event));
        const effect = transition(before, event, body);

        counts.events++;

        if (effect.ignored) {
            counts.ignored++;
        }

        if (effect.after) {
            counts.effective += effect.changed ? 1 : 0;
            connections.set(name(event), effect.after);
        }
    }

    const having = (status) => [...connections.values()]
        .filter((c) => c.status === STATUS[status]).length;

    return { connections, counts: {
        ...counts,
        valid: having('valid'),
        invalid: having('invalid'),
        tombstones: having('deleted'),
    } };
}


/*
 * {}: event only; {ignored}: counted as that; {after, changed}: what the
 * connection is now.
 */
function transition(before, event, body) {
    const what = `${OPERATIONS[event.operation]} `
                 + `${['not said', 'failure', 'success'][event.success]}`;
    const is = before ? Object.keys(STATUS).find(
        (one) => STATUS[one] === before.status) : 'none';
    const ignored = { ignored: true };

    if (TYPES[event.type] !== 'auth') {
        return {};
    }

    switch (what) {
    case 'creation success':
        if (is === 'deleted'
            || is !== 'none' && before.creation_hmac === event.hmac)
        {
            return ignored;
        }

        return become('valid', before, event, body);

    case 'override success':
        return is === 'deleted' ? ignored
               : become('valid', before, event, body);

    case 'refresh success':
        return is === 'none' || is === 'deleted' ? ignored
               : become('valid', before, event, body);

    case 'override failure':
    case 'refresh failure':
        return is === 'none' || is === 'deleted' ? ignored
               : become('invalid', before, event, body);

    case 'deletion success':
    case 'deletion not said':
        return become('deleted', before, event, body);

    default:
        return {};
    }
}


function become(status, before, event, body) {
    const creation = OPERATIONS[event.operation] === 'creation';
    const at = event.received_at;
    const old = before || {
        environment: event.environment,
        integration: event.integration,
        connection_id: event.connection_id,
        status: 0, created_sequence: 0, updated_sequence: 0, created_at: 0,
        updated_at: 0, status_since: 0, checked_at: 0, repeats: 0,
        creation_hmac: NO_HMAC, provider: '', error_type: '', error_text: '',
        tags: {},
    };
    const after = { ...old, status: STATUS[status], checked_at: at };

    if (old.status !== after.status) {
        after.status_since = at;
        after.repeats = 0;
    } else if (!creation) {
        after.repeats++;
    }

    /* A tombstone stays what it was when it was made. */

    if (old.status !== STATUS.deleted) {
        after.provider = body.provider || old.provider;

        if (Object.keys(body.tags || {}).length) {
            after.tags = body.tags;
        }
    }

    if (status === 'invalid') {
        after.error_type = body.error.type;
        after.error_text = body.error.description;
    } else if (old.status !== STATUS.deleted) {
        after.error_type = '';
        after.error_text = '';
    }

    if (creation) {
        after.creation_hmac = event.hmac;
    }

    if (status === 'valid' && old.created_sequence === 0) {
        after.created_sequence = event.sequence;
        after.created_at = at;
    }

    const same = ['status', 'provider', 'error_type', 'error_text'].every(
        (member) => old[member] === after[member])
        && sorted(old.tags) === sorted(after.tags);

    const changed = creation || !same;

    if (changed) {
        after.updated_sequence = event.sequence;
        after.updated_at = at;
    }

    return { after, changed };
}


function sorted(tags) {
    return JSON.stringify(Object.entries(tags).sort());
}


/* The state as it was read is what the model makes of the log. */
function assertFolded(dump, bodies) {
    const model = fold(dump.events, bodies);

    assert.strictEqual(dump.meta.applied, dump.meta.last);
    assert.strictEqual(dump.meta.log, dump.meta.state);

    for (const { kind, id, ...seen } of dump.connections) {
        const expected = model.connections.get(name(seen));

        assert.match(id, /^[0-9a-f]{32}$/);
        assert.ok(expected, `nobody made ${name(seen)}`);
        assert.deepStrictEqual(seen, expected);
    }

    assert.strictEqual(dump.connections.length, model.connections.size);

    const counted = Object.keys(model.counts);

    assert.deepStrictEqual(
        Object.fromEntries(counted.map((one) => [one, dump.meta[one]])),
        model.counts);
    assert.strictEqual(dump.meta.not_understood, 0);
    assert.strictEqual(dump.meta.gaps, 0);

    /* Each tag of what is not deleted is in the index once. */

    const indexed = [...model.connections.values()]
        .filter((c) => c.status !== STATUS.deleted)
        .reduce((sum, c) => sum + Object.keys(c.tags).length, 0);

    assert.strictEqual(dump.meta.owners_entries, indexed);
    assert.strictEqual(dump.meta.tombstones_entries,
                       model.counts.tombstones);

    return model;
}


/*
 * What was answered is in the log: under the sequence that was answered, and
 * once where repeats are told.  webhooks: those of a Load.
 */
function assertKept(dump, webhooks) {
    const bySequence = new Map();
    const byHmac = new Map();
    let previous = 0;

    for (const event of dump.events) {
        assert.strictEqual(event.sequence, previous + 1);
        previous = event.sequence;

        bySequence.set(event.sequence, event);
        byHmac.set(event.hmac, (byHmac.get(event.hmac) || []).concat(event));
    }

    const sent = new Set(webhooks.map((webhook) => webhook.hmac));

    for (const event of dump.events) {
        assert.ok(sent.has(event.hmac), `nobody sent ${event.hmac}`);
    }

    for (const webhook of webhooks) {
        const found = byHmac.get(webhook.hmac) || [];
        const { dedupes } = webhook.environment;
        const firsts = webhook.answers.filter((answer) => !answer.duplicate);
        const sequences = new Set(webhook.answers.map(
            (answer) => answer.sequence));

        assert.ok(webhook.answers.length >= 1);
        assert.ok(found.length <= webhook.sends);

        if (dedupes) {
            assert.strictEqual(found.length, 1);
            assert.strictEqual(sequences.size, 1);
            assert.ok(firsts.length <= 1);
        } else {
            assert.strictEqual(new Set(firsts.map(
                (answer) => answer.sequence)).size, firsts.length);
        }

        for (const answer of webhook.answers) {
            assert.strictEqual(answer.ack, true);

            const event = bySequence.get(answer.sequence);

            assert.ok(event, `${answer.sequence} is not in the log`);
            assert.strictEqual(event.hmac, webhook.hmac);
        }

        for (const event of found) {
            assertEvent(event, webhook);
        }
    }

    assertOrder(dump, new Map(webhooks.map((one) => [one.hmac, one])));
}


function assertEvent(event, webhook) {
    const { success } = webhook.event;

    assert.deepStrictEqual({
        source: event.source,
        type: TYPES[event.type],
        type_name: event.type_name,
        operation: OPERATIONS[event.operation],
        success: [undefined, false, true][event.success],
        environment: event.environment,
        integration: event.integration,
        connection_id: event.connection_id,
        body_len: event.body_len,
    }, {
        source: 0,
        type: 'auth',
        type_name: 'auth',
        operation: webhook.event.operation,
        success,
        environment: webhook.environment.name,
        integration: webhook.event.providerConfigKey,
        connection_id: webhook.event.connectionId,
        body_len: webhook.body.length,
    });

    assert.ok(Math.abs(event.received_at - Date.now()) < 600000);
}


/* What was answered before another was sent comes before it. */
function assertOrder(dump, webhooks) {
    let earliest = Infinity;

    for (const event of [...dump.events].reverse()) {
        const webhook = webhooks.get(event.hmac);

        if (!webhook.environment.dedupes) {
            continue;
        }

        assert.ok(webhook.sent <= earliest,
                  `${event.sequence} was sent after a later one was answered`);

        earliest = Math.min(earliest, webhook.answers[0].at);
    }
}


module.exports = { compile, reader, fold, assertFolded, assertKept, STATUS };
