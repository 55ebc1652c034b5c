/*
 * Large and strange webhooks: bodies of every size at which something changes,
 * as they come and in pieces, cut anywhere; JSON that is none, or that nobody
 * would write.  What was answered 200 is in the store byte for byte, and
 * whatever is in it, the others are not kept waiting.
 */

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const nodeTest = require('node:test');
const { Worker: Thread } = require('node:worker_threads');

const { hmac } = require('./client');
const { KEY, MEMORY, MOST, bodies, calm, creation, files, hold, list, nango,
        running, settings, signed, temporary } = require('./edge');
const { sleep, until } = require('./nginx');
const { Wire, chunked, get, once, post } = require('./wire');

const LONG = Boolean(process.env.NANGO_LONG);
const SIZES = [0, 1, MEMORY - 1, MEMORY, MEMORY + 1, 2 * MEMORY - 1,
               2 * MEMORY, 2 * MEMORY + 1];

/* Each has settings of its own for bodies, none of which counts. */
const BODIES = {
    '/webhook': '',
    '/small': 'client_body_buffer_size 1k; client_max_body_size 1k;',
    '/large': 'client_body_buffer_size 1m; client_body_in_single_buffer on;',
    '/file': 'client_body_in_file_only on; client_max_body_size 0;',
    '/clean': `client_body_in_file_only clean;
               client_body_temp_path @DIR@/client_body;`,
    '/stream': `proxy_request_buffering off; client_body_buffer_size 1k;
                client_body_in_single_buffer on;`,
};


/* None may hang: what waits for ever is a failure. */
function test(name, options, fn) {
    return nodeTest(name, { timeout: LONG ? 600000 : 120000, ...options }, fn);
}


/* An event of exactly that many bytes, where that is possible. */
function sized(size, name) {
    const body = creation(name, size);

    return body.length === size ? body : Buffer.alloc(size, '1');
}


/* All that are in the store are those, in any order, byte for byte. */
function same(events, sent) {
    assert.strictEqual(events.length, sent.length);

    for (const body of sent) {
        const event = events.find((one) => one.hmac === hmac(body, KEY)
                                           && one.bytes.length === body.length);

        assert.ok(event, `${body.subarray(0, 60)} is not there`);
        assert.ok(event.bytes.equals(body));
    }
}


test('a body of every size, whatever the settings for bodies', {},
     async (t) =>
{
    const read = bodies(t);
    const nginx = await running(t, settings(0, {
        server: Object.entries(BODIES).slice(1).map(([url, lines]) => `
            location = ${url} { ${lines} nango_webhook prod; }`).join(''),
    }));
    const workers = nginx.workers();
    const sent = [];
    let n = 0;

    for (const url of Object.keys(BODIES)) {
        for (const size of SIZES) {
            for (const way of [post, chunked]) {
                const body = sized(size, `c-${n++}`);
                const answer = await once(nginx.port,
                    way(url, signed(body), body, 10007));

                assert.deepStrictEqual([url, size, answer.status],
                                       [url, size, 200]);
                assert.strictEqual(answer.json.sequence, n);
                sent.push(body);
            }
        }
    }

    const events = read(nginx);

    events.forEach((event, i) => {
        assert.ok(event.bytes.equals(sent[i]), `body ${i}`);
        assert.strictEqual(Boolean(event.body_file),
                           sent[i].length > MEMORY);
    });

    assert.strictEqual(events.length, n);
    assert.strictEqual(files(nginx, 'bodies').length,
                       events.filter((event) => event.body_file).length);
    assert.deepStrictEqual(temporary(nginx), []);
    calm(nginx, workers);
});


test('a body of 75 MB is stored, of one byte more is refused', {},
     async (t) =>
{
    const read = bodies(t);
    const nginx = await running(t, settings());
    const sent = [];

    for (const way of [post, chunked]) {
        for (const size of [MOST - 1, MOST]) {
            const body = sized(size, `c-${way.name}-${size}`);
            const answer = await once(nginx.port,
                                      way('/webhook', signed(body), body,
                                          1 << 20));

            assert.deepStrictEqual(answer.json,
                                   { ack: true, sequence: sent.length + 1 });
            sent.push(body);
        }

        const body = sized(MOST + 1, `c-${way.name}`);
        const wire = new Wire(nginx.port);

        wire.write(way('/webhook', signed(body), body, 1 << 20));

        const answer = await wire.answer();

        assert.strictEqual(answer.status, 413);
        assert.strictEqual(answer.headers['x-nango-error'],
                           'body_too_large');

        /* It was read to its end, and not as requests. */

        wire.write(get('/plain'));
        assert.strictEqual((await wire.answer()).text, 'plain\n');
        wire.close();
    }

    same(read(nginx), sent);
    assert.deepStrictEqual((await list(nginx)).connections.length, 4);
    await until('no temporary file', () => temporary(nginx).length === 0);
    assert.strictEqual(files(nginx, 'bodies').length, 4);
    calm(nginx);
});


/* Whose a body is shows at its end, and until then it may be a stranger's. */
test('strangers do not fill the disk', {}, async (t) => {
    const size = 1024 * 1024;
    const nginx = await running(t, {
        ...settings(), workers: 1,
        http: settings().http.replace('@STORE@', '@STORE@ size=16m'),
        server: 'location = /webhook { nango_webhook prod max_body=1m; }',
    });
    const held = () => files(nginx, 'temp').reduce((sum, name) => sum
        + fs.statSync(path.join(nginx.store, 'temp', name)).size, 0);
    const ask = (body) => once(nginx.port, post('/webhook', signed(body),
                                                body));
    const full = () => nginx.log().match(/too many large ones/g) || [];
    const strangers = Array.from({ length: 8 }, () => new Wire(nginx.port));

    for (const wire of strangers) {
        wire.write('POST /webhook HTTP/1.1\r\nHost: localhost\r\n'
                   + `X-Nango-Hmac-Sha256: ${'0'.repeat(64)}\r\n`
                   + `Content-Length: ${size}\r\n\r\n`);
        wire.write(Buffer.alloc(size - 1));
    }

    await until('the rest to be refused', () => full().length >= 6);
    assert.ok(held() <= 2 * size, `${held()} bytes`);

    /* Small ones need no file; large ones Nango sends again. */

    assert.strictEqual((await ask(sized(1000, 'c-small'))).status, 200);
    assert.strictEqual((await ask(sized(size, 'c-large'))).status, 503);

    for (const wire of strangers) {
        wire.write('x');
    }

    const codes = await Promise.all(strangers.map(async (wire) =>
        (await wire.answer()).status));

    /* They share it: that of two may be all that there is of either. */

    assert.ok(codes.every((code) => code === 401 || code === 503));
    assert.ok(codes.filter((code) => code === 401).length <= 2, `${codes}`);

    strangers.forEach((wire) => wire.close());
    await until('room', async () =>
        (await ask(sized(size, 'c-large'))).status === 200);
    await until('no temporary file', () => temporary(nginx).length === 0);

    /* All of it is there again. */

    for (let i = 0; i < 5; i++) {
        const body = sized(size, `c-${i}`);

        assert.strictEqual((await ask(body)).status, 200);
    }

    calm(nginx);
});


test('a webhook that comes byte by byte', {}, async (t) => {
    const read = bodies(t);
    const nginx = await running(t, settings());
    const sent = await Promise.all([post, chunked].map(async (way) => {
        const body = creation(`slow-${way.name}`);
        const bytes = way('/webhook', signed(body), body, 7);
        const wire = new Wire(nginx.port);

        for (let i = 0; i < bytes.length; i++) {
            await wire.write(bytes.subarray(i, i + 1));
            await sleep(1);
        }

        assert.strictEqual((await wire.answer()).json.ack, true);
        wire.close();

        return body;
    }));

    same(read(nginx), sent);
    calm(nginx);
});


test('a webhook that is cut after any of its bytes is not there', {},
     async (t) =>
{
    const read = bodies(t);
    const nginx = await running(t, settings());
    const workers = nginx.workers();
    const small = Buffer.from('{"type":"sync","connectionId":"cut"}');
    const all = [post, chunked].map((way) => way('/webhook', signed(small),
                                                 small, 9));
    const cut = async (bytes, abruptly) => {
        const wire = new Wire(nginx.port);

        await wire.opened;
        await wire.write(bytes);

        /* One that says that it is done, and listens. */

        if (abruptly === undefined) {
            wire.end();
            await wire.closed;
            assert.ok(wire.answers.every(({ status }) => status === 400));
        }

        wire.close(abruptly);
    };

    for (const bytes of all) {
        for (let i = 0; i < bytes.length; i += 8) {
            const some = [];

            for (let n = i; n < i + 8 && n < bytes.length; n++) {
                for (const abruptly of [true, false, undefined]) {
                    some.push(cut(bytes.subarray(0, n), abruptly));
                }
            }

            await Promise.all(some);
        }
    }

    /* A large one, whose file goes with it. */

    const large = creation('cut-large', 5 * MEMORY);

    for (const way of [post, chunked]) {
        const bytes = way('/webhook', signed(large), large, 65536);

        for (const part of [0.3, 0.5, 0.999]) {
            await cut(bytes.subarray(0, bytes.length * part), part === 0.5);
        }

        await cut(bytes.subarray(0, bytes.length - 1), false);
    }

    await until('no temporary file', () => temporary(nginx).length === 0);
    assert.deepStrictEqual(read(nginx), []);
    assert.deepStrictEqual(files(nginx, 'bodies'), []);

    /* Whole, each of them is. */

    for (const bytes of all) {
        assert.strictEqual((await once(nginx.port, bytes)).status, 200);
    }

    assert.strictEqual(read(nginx).length, 1);
    calm(nginx, workers);
});


const FACE = '\u{1f600}';
const ID = FACE.repeat(255);

/* What the event's head says, as JavaScript reads it. */
const STRANGE = {
    nothing: '',
    'one byte': '1',
    null: 'null',
    'white space': ' \t\r\n',
    'a string': '"auth"',
    'an array': '[{"type":"auth"}]',
    'half an object': '{"type":"auth","connectionId":"half"',
    'an object and more': '{"type":"auth"} x',
    'two objects': '{"type":"auth"}{"type":"sync"}',
    'text': 'hello, world',
    'a form': 'type=auth&connectionId=1',
    'a BOM': '\ufeff{"type":"auth","connectionId":"bom"}',
    'NUL': Buffer.from('\0\0\0'),
    'NUL in a string': Buffer.from('{"type":"au\0th","connectionId":"nul"}'),
    'NUL after an object': Buffer.from('{"type":"auth"}\0'),
    'a member that is escaped':
        '{"\\u0074ype":"auth","conn\\u0065ctionId":"escaped"}',
    'a type that is escaped': '{"type":"\\u0061uth","connectionId":"a"}',
    'members twice':
        '{"type":"sync","type":"auth","connectionId":"first",'
        + '"connectionId":"last","operation":"creation","operation":"refresh"}',
    'a member twice, once escaped':
        '{"type":"sync","t\\u0079pe":"auth","connectionId":"x"}',
    'members twice, the last of another kind':
        '{"type":"auth","type":7,"connectionId":"x","connectionId":[]}',
    '__proto__': '{"__proto__":{"type":"auth"},"connectionId":"proto"}',
    'constructor': '{"constructor":{"prototype":{"type":"auth"}},'
                   + '"toString":1,"type":"__proto__"}',
    'a type that is a number': '{"type":1,"connectionId":"n"}',
    'a type that is null': '{"type":null,"connectionId":"n"}',
    'a type that is an object': '{"type":{"type":"auth"}}',
    'a type of no characters': '{"type":"","connectionId":"e"}',
    'a type of 64': `{"type":"${'t'.repeat(64)}"}`,
    'a type of 65': `{"type":"${'t'.repeat(65)}"}`,
    'a type that is new': '{"type":"something-new","connectionId":"new"}',
    'an id that is a number': '{"type":"auth","connectionId":12345678901}',
    'an id with a lone surrogate':
        '{"type":"auth","connectionId":"a\\ud800b"}',
    'an id with a pair the wrong way':
        '{"type":"auth","connectionId":"\\udc00\\ud800"}',
    'an id with a pair': '{"type":"auth","connectionId":"\\ud83d\\ude00"}',
    'an id with \\u0000': '{"type":"auth","connectionId":"a\\u0000b"}',
    'an id with a tab': '{"type":"auth","connectionId":"a\\tb"}',
    'an id of all that ids may be':
        '{"type":"auth","connectionId":"{}\\"\'\\\\|/ é"}',
    'an id of 255 large characters': `{"type":"auth","connectionId":"${ID}"}`,
    'the same escaped': `{"type":"auth","connectionId":"${
        '\\ud83d\\ude00'.repeat(255)}"}`,
    'one more': `{"type":"auth","connectionId":"${ID}x"}`,
    'invalid UTF-8 in an id': Buffer.concat([
        Buffer.from('{"type":"auth","connectionId":"'),
        Buffer.from([0xff, 0xfe, 0xc0, 0x80]), Buffer.from('"}')]),
    'invalid UTF-8 elsewhere': Buffer.concat([
        Buffer.from('{"type":"auth","x":"'), Buffer.from([0xed, 0xa0, 0x80]),
        Buffer.from('","connectionId":"utf8"}')]),
    'a huge number': '{"type":"auth","connectionId":"n","n":1e999999}',
    'a number of 400 digits':
        `{"n":${'9'.repeat(400)},"type":"auth","connectionId":"n"}`,
    'numbers that are none': '{"type":"auth","n":01}',
    'NaN': '{"type":"auth","n":NaN}',
    'a comma too many': '{"type":"auth",}',
    'a comment': '{"type":"auth"/* */}',
    'depth of 1000': `{"type":"auth","connectionId":"d","x":${
        '['.repeat(1000)}${']'.repeat(1000)}}`,
};

/* Not read as JSON on purpose: see docs/internals.md. */
const TOO_DEEP = {
    'depth of 50,000 in memory': `{"type":"auth","connectionId":"d","x":${
        '['.repeat(50000)}${']'.repeat(50000)}}`,
    'depth of 100,000 in a file': `{"type":"auth","connectionId":"d","x":${
        '{"a":'.repeat(100000)}1${'}'.repeat(100000)}}`,
    'depth of 100,000 that never ends': '['.repeat(100000),
};


function read(value, most, pattern) {
    return typeof value === 'string' && value.length && !pattern.test(value)
           && Buffer.byteLength(value) <= most
           && Buffer.from(value).toString() === value ? value : '';
}


/* What internals.md says of the head of an event, with Node's own parser. */
function expected(body) {
    let event;

    try {
        event = JSON.parse(Buffer.from(body).toString());
    } catch (err) {
        event = undefined;
    }

    if (event === null || typeof event !== 'object' || Array.isArray(event)) {
        event = {};
    }

    return {
        type_name: read(event.type, 64, /[^!-~ ]/),
        connection_id: read(event.connectionId, 1020,
                            // eslint-disable-next-line no-control-regex
                            /[\u0000-\u001f\u007f\ufffd]/),
        type: ['auth', 'sync', 'async_action', 'forward']
            .indexOf(event.type) + 1,
    };
}


for (const [name, way] of [['with a length', post], ['in chunks', chunked]]) {
    test(`strange bodies ${name} are stored as they are`, {}, async (t) => {
        const dump = bodies(t);
        const nginx = await running(t, settings());
        const workers = nginx.workers();
        const strange = Object.entries({ ...STRANGE, ...TOO_DEEP });

        for (const [what, body] of strange) {
            const answer = await once(nginx.port,
                                      way('/webhook', signed(body), body, 11));

            assert.deepStrictEqual([what, answer.status], [what, 200]);
        }

        const events = dump(nginx);

        assert.strictEqual(events.length, strange.length);

        strange.forEach(([what, body], i) => {
            const event = events[i];
            const { type_name, connection_id, type } = event;

            assert.ok(event.bytes.equals(Buffer.from(body)), what);
            assert.deepStrictEqual({ what, type_name, connection_id, type },
                { what, ...(Object.hasOwn(TOO_DEEP, what)
                            ? { type_name: '', connection_id: '', type: 0 }
                            : expected(body)) });
        });

        /* The fold takes them all, and goes on. */

        await once(nginx.port, post('/webhook', signed(creation('after')),
                                    creation('after')));

        assert.deepStrictEqual((await list(nginx)).connections.map(
            (c) => c.connection_id), ['after']);
        calm(nginx, workers);
    });
}


/* Creations whose tags are not what they should be, and what is left. */
const TAGS = {
    'an array': [['a', 'b'], undefined],
    'a number': [7, undefined],
    'a string': ['end_user_id', undefined],
    null: [null, undefined],
    'nested deep': [{ end_user_id: '42', x: JSON.parse('['.repeat(900)
                                              + ']'.repeat(900)) }, {}],
    'values of other kinds': [{ end_user_id: '42', a: 1, b: null, c: ['x'],
                                d: { e: 'f' }, g: true }, {}],
    'values of no length': [{ end_user_id: '42', a: '' }, {}],
    'values of 255 characters of three bytes':
        [{ end_user_id: '42', a: '\u20ac'.repeat(255) },
         { a: '\u20ac'.repeat(255) }],
    'values of 127 characters of four bytes':
        [{ end_user_id: '42', a: FACE.repeat(127) },
         { a: FACE.repeat(127) }],
    'values of 255 characters of four bytes, too long for Nango':
        [{ end_user_id: '42', a: FACE.repeat(255) }, {}],
    'names of strange kinds':
        [{ end_user_id: '42', '': 'x', '1a': 'x', 'a b': 'x', 'é': 'x',
           constructor: 'x', 'A-b_c/d.E': 'x', ['n'.repeat(65)]: 'x' },
         { constructor: 'x', 'a-b_c/d.e': 'x' }],
};


test('strange tags', {}, async (t) => {
    const nginx = await running(t, settings());
    const wanted = new Map();

    for (const [what, [tags, left]] of Object.entries(TAGS)) {
        const body = creation(what, 0, { tags });

        if (left) {
            wanted.set(what, { end_user_id: '42', ...left });
        }

        assert.strictEqual((await once(nginx.port,
            post('/webhook', signed(body), body))).status, 200);
    }

    /* As text, since no object of JavaScript's has such members. */

    for (const [what, tags, left] of [
        ['__proto__', '{"__proto__":"x","end_user_id":"42"}',
         { end_user_id: '42' }],
        ['twice', '{"end_user_id":"7","a":"1","a":"2","end_user_id":"42"}',
         { end_user_id: '42', a: '2' }],
        ['twice by case', '{"END_USER_ID":"7","end_user_id":"42"}',
         { end_user_id: '42' }],
        ['escaped', '{"end\\u005fuser_id":"\\u00342"}', { end_user_id: '42' }],
        ['surrogates',
         '{"end_user_id":"42","a":"\\ud800","b":"\\ud83d\\ude00"}',
         { end_user_id: '42', b: FACE }],
    ]) {
        const body = creation(what, 0, { tags: '@' }).toString()
            .replace('"@"', () => tags);

        wanted.set(what, left);

        assert.strictEqual((await once(nginx.port,
            post('/webhook', signed(body), body))).status, 200);
    }

    const { connections } = await list(nginx);
    const found = new Map(connections.map((c) => [c.connection_id, c.tags]));

    assert.deepStrictEqual(found, wanted);
    calm(nginx);
});


test('ids and owners of the greatest length, everywhere', {}, async (t) => {
    const api = await nango(t);
    const nginx = await running(t, settings(api.port));
    const longest = [FACE.repeat(127), '\u20ac'.repeat(255), 'x'.repeat(255)];

    for (const user of longest) {
        const body = creation(ID, 0, { tags: { end_user_id: user },
                                       providerConfigKey: `${user.length}` });

        assert.strictEqual((await once(nginx.port,
            post('/webhook', signed(body), body))).status, 200);

        const { connections } = await list(nginx, user);

        assert.strictEqual(connections.length, 1);

        const [one] = connections;

        assert.strictEqual(one.connection_id, ID);
        assert.deepStrictEqual(one.tags, { end_user_id: user });
        assert.deepStrictEqual(one.owner, { end_user_id: user });
        assert.strictEqual((await list(nginx, user, `?id=${one.id}`))
            .connection_id, ID);

        const answer = await once(nginx.port, post('/session',
                                                   { 'X-User': user }));

        assert.strictEqual(answer.status, 200, answer.text);
        assert.deepStrictEqual(api.seen.pop().tags, { end_user_id: user });
    }

    /* Nango counts as JavaScript does: this one it would refuse. */

    for (const request of [post('/session', { 'X-User': ID }),
                           get('/connections', { 'X-User': ID })])
    {
        const answer = await once(nginx.port, request);

        assert.strictEqual(answer.status, 400);
        assert.strictEqual(answer.headers['x-nango-error'], 'invalid_tag');
    }

    assert.deepStrictEqual(api.seen, []);

    /* What is asked for is Nango's ids, up to 255 characters. */

    for (const [id, status] of [['a'.repeat(255), 200], ['a'.repeat(256), 400],
                                [ID, 400]])
    {
        const body = JSON.stringify({ integration: id });
        const answer = await once(nginx.port, post('/session',
            { 'X-User': '42', 'Content-Type': 'application/json' }, body));

        assert.strictEqual(answer.status, status);
    }

    calm(nginx);
});


/* As another location has received them: by its own rules. */
const MIRRORS = {
    '/mirror': 'client_body_buffer_size 16k; client_max_body_size 0;',
    '/mirror-memory': 'client_body_buffer_size 2m; client_max_body_size 0;',
    '/mirror-file': 'client_body_in_file_only clean; client_max_body_size 0;',
};


test('a webhook that is mirrored is stored, however large', {}, async (t) => {
    const dump = bodies(t);
    const nginx = await running(t, settings(0, {
        server: `
    location = /mirrored { internal; nango_webhook prod; }
    location = /target   { client_max_body_size 0; return 200 "target\\n"; }
    location = /both     { mirror /mirrored; nango_webhook twin; }
` + Object.entries(MIRRORS).map(([url, lines]) => `
    location = ${url} {
        ${lines}
        mirror     /mirrored;
        proxy_pass http://127.0.0.1:@PORT@/target;
    }`).join(''),
    }));
    const sent = [];

    /* The first ones may come before there is a store. */
    const count = () => {
        try {
            return dump(nginx).length;
        } catch (err) {
            return -1;
        }
    };

    for (const url of Object.keys(MIRRORS)) {
        for (const size of [0, 1, 20000, MEMORY, MEMORY + 1, 8 * MEMORY]) {
            for (const way of [post, chunked]) {
                const body = sized(size, `m-${url}-${size}-${way.name}`);
                const answer = await once(nginx.port,
                    way(url, signed(body), body, 10007));

                assert.strictEqual(answer.text, 'target\n');
                sent.push(body);
                await until('the mirrored one', () => count()
                                                     === sent.length);
            }
        }
    }

    same(dump(nginx), sent);

    /* A forged one is not, and nothing is left of it. */

    const forged = creation('forged', 4 * MEMORY);

    assert.strictEqual((await once(nginx.port,
        post('/mirror', signed(forged, 'other'), forged))).status, 200);

    /* Two webhooks of one request: a file for each. */

    const both = creation('both', 4 * MEMORY);

    assert.strictEqual((await once(nginx.port,
        post('/both', signed(both), both))).status, 200);
    sent.push(both, both);

    await until('both', () => dump(nginx).length === sent.length);
    assert.deepStrictEqual(dump(nginx).slice(-2).map((e) => e.environment)
        .sort(), ['prod', 'twin']);
    assert.ok(dump(nginx).slice(-2).every((e) => e.bytes.equals(both)));

    await until('no temporary file', () => temporary(nginx).length === 0);
    assert.strictEqual(files(nginx, 'bodies').length,
                       dump(nginx).filter((e) => e.body_file).length);
    calm(nginx);
});


/* Requests one after the other, until it is stopped; how long each took. */
class Stream {
    constructor(nginx, make) {
        this.times = [];
        this.wire = new Wire(nginx.port);
        this.running = this.run(make);

        /* Whoever stops it is told. */
        this.running.catch(() => {});
    }

    async run(make) {
        while (!this.stopped) {
            const start = performance.now();

            this.wire.write(make());

            const { status } = await this.wire.answer();

            assert.strictEqual(status, 200);
            this.times.push(performance.now() - start);
            await sleep(2);
        }
    }

    async stop() {
        this.stopped = true;
        await this.running;
        this.wire.close();

        this.times.sort((a, b) => a - b);

        return { n: this.times.length,
                 p99: this.times[Math.floor(this.times.length * 0.99)],
                 most: this.times[this.times.length - 1] };
    }
}


async function streams(nginx, work) {
    let n = 0;
    const made = {
        plain: () => get('/plain'),
        webhook: () => {
            const body = creation(`small-${process.hrtime.bigint()}-${n++}`, 0,
                                  { tags: { end_user_id: 'small' } });

            return post('/webhook', signed(body), body);
        },
        connections: () => get('/connections', { 'X-User': 'few' }),
    };
    const running = {};
    const seen = {};

    for (const [name, make] of Object.entries(made)) {
        running[name] = new Stream(nginx, make);
    }

    await work();

    for (const name of Object.keys(made)) {
        seen[name] = await running[name].stop();
    }

    return seen;
}


function told(t, what, quiet, busy) {
    for (const name of Object.keys(quiet)) {
        const [a, b] = [quiet[name], busy[name]];

        t.diagnostic(`${what}: ${name} p99 ${b.p99.toFixed(1)} ms, ${
            (b.p99 / a.p99).toFixed(1)} times the ${a.p99.toFixed(1)
        } ms of a quiet run; most ${b.most.toFixed(0)} ms`);
    }
}


/*
 * One worker for all of them, with as many keys as there may be, the last of
 * which it is: a loop that verified 75 MB itself would stand still for seconds.
 */
const KEYS = { ...settings(), workers: 1 };

KEYS.http = KEYS.http.replace(/webhook_signing_key .*;/,
    `webhook_signing_key ${Array.from({ length: 15 },
        (_, i) => `data:another-key-${i}`).join(' ')} data:${KEY};`);


function heavy(t, nginx, kind, count) {
    const thread = new Thread(path.join(__dirname, 'heavy.js'),
        { workerData: { port: nginx.port, kind, count } });
    const next = () => new Promise((resolve, reject) => {
        thread.once('message', resolve);
        thread.once('error', reject);
    });

    t.after(() => thread.terminate());

    return next().then(() => async () => {
        thread.postMessage('go');

        const answers = await next();

        assert.deepStrictEqual(answers, Array(count).fill(200));
    });
}


for (const [kind, count, what] of [
    ['large', LONG ? 4 : 1, 'bodies of 75 MB'],
    ['members', LONG ? 6 : 2, 'a million members'],
    ['depth', LONG ? 100 : 20, 'depth of 100,000'],
    ['memory', LONG ? 1000 : 200, '128 KB of members'],
]) {
    test(`others go on beside ${what}`, {}, async (t) => {
        const nginx = await running(t, KEYS);
        const body = creation('few', 0, { tags: { end_user_id: 'few' } });

        await once(nginx.port, post('/webhook', signed(body), body));

        const go = await heavy(t, nginx, kind, count);
        const quiet = await streams(nginx, () => sleep(1000));
        const busy = await streams(nginx, async () => {
            await go();

            /* Nobody's answer waits for the fold, which reads it as well. */

            await sleep(300);
        });

        told(t, what, quiet, busy);

        /* What waits for no disk is what shows a loop that stands still. */

        assert.ok(busy.plain.most < Math.max(1500, 10 * quiet.plain.most),
                  `${busy.plain.most} ms`);
        calm(nginx);
    });
}


test('lists of large connections keep nobody waiting', {}, async (t) => {
    const count = LONG ? 1000 : 400;
    const nginx = await running(t, KEYS);
    const tags = Object.fromEntries(Array.from({ length: 50 },
        (_, i) => [`tag-${i}`, '\u20ac'.repeat(255)]));
    const wire = new Wire(nginx.port);
    const few = creation('few', 0, { tags: { end_user_id: 'few' } });

    await once(nginx.port, post('/webhook', signed(few), few));

    for (let i = 0; i < count; i++) {
        const body = creation(`${i} ${FACE.repeat(250)}`, 0,
                              { tags: { end_user_id: 'many', ...tags } });

        wire.write(post('/webhook', signed(body), body));
        assert.strictEqual((await wire.answer()).status, 200);
    }

    wire.close();

    const quiet = await streams(nginx, () => sleep(1000));
    const ids = [];
    let pages = 0;

    const busy = await streams(nginx, async () => {
        for (let next = ''; next !== null; pages++) {
            const page = await list(nginx, 'many', `?limit=1000${
                next && `&cursor=${next}`}`);

            assert.ok(page.connections.length >= 1);
            page.connections.forEach((c) => {
                assert.strictEqual(Object.keys(c.tags).length, 51);
                ids.push(c.id);
            });
            next = page.next;
        }

        /* None of them is of that integration. */

        for (let next = ''; next !== null; ) {
            const page = await list(nginx, 'many', `?integration=other${
                next && `&cursor=${next}`}`);

            assert.deepStrictEqual(page.connections, []);
            next = page.next;
        }
    });

    told(t, `${count} connections of 40 KB`, quiet, busy);

    /* All of them, each once, in pages of a size. */

    assert.strictEqual(new Set(ids).size, count);
    assert.strictEqual(ids.length, count);
    assert.ok(pages >= count * 40000 / (2 << 20), `${pages} pages`);
    assert.ok(busy.plain.most < Math.max(1500, 10 * quiet.plain.most),
              `${busy.plain.most} ms`);
    calm(nginx);
});


test('bodies that come while the store is being opened', {}, async (t) => {
    const read = bodies(t);
    const nginx = await running(t, settings());

    await list(nginx);
    await nginx.stop();

    /* Opening it waits for the log's writer. */

    for (const patient of LONG ? [true, false] : [true]) {
        const before = read(nginx).length;
        const release = await hold(t, nginx);

        await nginx.start();

        const sent = [post, chunked].flatMap((way) => [0, MEMORY + 1,
                                                       4 * MEMORY].map(
            (size) => [way, creation(`early-${patient}-${way.name}-${size}`,
                                     size)]));
        const answers = sent.map(([way, body]) => once(nginx.port,
            way('/webhook', signed(body), body, 10007)));

        /* What its body would be written to is not there yet. */

        await sleep(patient ? 500 : 6000);
        assert.strictEqual((await once(nginx.port, get('/plain'))).status,
                           200);
        await release();

        /* A small one of a known length is queued for as long as it takes. */

        assert.deepStrictEqual((await Promise.all(answers)).map(
            ({ status }) => status),
            sent.map(([way, { length }]) => patient
                || way === post && length <= MEMORY ? 200 : 503));

        assert.strictEqual(read(nginx).length,
                           before + (patient ? sent.length : 1));
        assert.deepStrictEqual(temporary(nginx), []);
        assert.strictEqual(files(nginx, 'bodies').length,
                           read(nginx).filter((e) => e.body_file).length);
        calm(nginx);
        await nginx.stop();
    }
});
