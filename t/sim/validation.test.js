/*
 * What Nango refuses, in which words, and what it makes of what it takes.
 * The codes, texts and paths are those of the wire.
 */

'use strict';

const assert = require('node:assert');

const h = require('./helper');

const { test } = h;

const A64 = 'a'.repeat(64);
const A255 = 'a'.repeat(255);
const KEY_RULE = 'Invalid string: must match pattern '
                 + '/^[a-zA-Z0-9~:.@ _-]+$/';

const issue = (code, message, ...path) => ({ code, message, path });
const expected = (what, got, ...path) =>
    issue('invalid_type', `Invalid input: expected ${what}, received ${got}`,
          ...path);
const badKey = (...path) =>
    issue('invalid_key', 'Invalid key in record', ...path);
const many = (n) => Object.fromEntries(
    Array.from({ length: n }, (_, i) => [`tag${i}`, 'v']));

/* name, body, and the issues; none where it is accepted. */
const SESSIONS = [
    ['no owner', {}, [expected('object', 'undefined', 'end_user')]],
    ['empty tags', { tags: {} }, []],
    ['tags alone', { tags: { end_user_id: '42' } }, []],
    ['a user alone', { end_user: { id: '42' } }, []],
    ['a list', [], [expected('object', 'array')]],
    ['tags that are none', { tags: [] },
     [expected('record', 'array', 'tags')]],
    ['null tags', { tags: null }, [expected('record', 'null', 'tags')]],
    ['an unknown key', { tags: {}, tag: 1 },
     [issue('unrecognized_keys', 'Unrecognized key: "tag"')]],
    ['two unknown keys', { tags: {}, x: 1, y: 2 },
     [issue('unrecognized_keys', 'Unrecognized keys: "x", "y"')]],
    ['an unknown key of the user', { end_user: { id: 'a', name: 'b' } },
     [issue('unrecognized_keys', 'Unrecognized key: "name"', 'end_user')]],
    ['an unknown key of the organization',
     { end_user: { id: 'a' }, organization: { id: 'b', name: 'c' } },
     [issue('unrecognized_keys', 'Unrecognized key: "name"',
            'organization')]],
    ['a key of a reconnect', { tags: {}, connection_id: 'x' },
     [issue('unrecognized_keys', 'Unrecognized key: "connection_id"')]],
    ['an empty user id', { end_user: { id: '' } },
     [issue('too_small', 'Too small: expected string to have >=1 characters',
            'end_user', 'id')]],
    ['an address that is none', { end_user: { id: 'a', email: 'nobody' } },
     [issue('invalid_format', 'Invalid email address', 'end_user', 'email')]],
    ['an address without a domain', { end_user: { id: 'a', email: 'ab@cd' } },
     [issue('invalid_format', 'Invalid email address', 'end_user', 'email')]],
    ['an address with two dots', { end_user: { id: 'a', email: 'a..b@c.de' } },
     [issue('invalid_format', 'Invalid email address', 'end_user', 'email')]],
    ['an address with odd signs',
     { end_user: { id: 'a', email: "o'k_+-.x@c-d.example" } }, []],
    ['a number for an id', { end_user: { id: 42 } },
     [expected('string', 'number', 'end_user', 'id')]],
    ['ten tags', { tags: many(10) }, []],
    ['eleven tags', { tags: many(11) },
     [issue('custom', 'Tags cannot contain more than 10 keys', 'tags')]],
    ['a key that begins with a digit', { tags: { '1a': 'v' } },
     [badKey('tags', '1a')]],
    ['a key with a space', { tags: { 'a b': 'v' } }, [badKey('tags', 'a b')]],
    ['every sign of a key', { tags: { 'aZ0_-./': 'v' } }, []],
    ['a key of 64', { tags: { [A64]: 'v' } }, []],
    ['a key of 65', { tags: { [`${A64}a`]: 'v' } },
     [badKey('tags', `${A64}a`)]],
    ['keys that fall together', { tags: { Team: 'a', team: 'b' } },
     [issue('custom', 'Duplicate tag key after case normalization: "team"',
            'tags')]],
    ['an empty value', { tags: { a: '' } },
     [issue('too_small', 'Too small: expected string to have >=1 characters',
            'tags', 'a')]],
    ['a value of 255', { tags: { a: A255 } }, []],
    ['a value of 256', { tags: { a: `${A255}a` } },
     [issue('too_big', 'Tag values must be at most 255 characters', 'tags',
            'a')]],
    ['a value that is no text', { tags: { a: 1 } },
     [expected('string', 'number', 'tags', 'a')]],
    ['an address as a tag', { tags: { end_user_email: 'a@b.co' } }, []],
    ['no address as that tag', { tags: { End_User_Email: 'nobody' } },
     [issue('custom', 'Tag "end_user_email" must be a valid email', 'tags')]],
    ['integrations that are no list', { tags: {}, allowed_integrations: 'a' },
     [expected('array', 'string', 'allowed_integrations')]],
    ['an integration with a slash',
     { tags: {}, allowed_integrations: ['github', 'a/b'] },
     [issue('invalid_format', KEY_RULE, 'allowed_integrations', '1')]],
    ['unknown integrations',
     { tags: {}, allowed_integrations: ['github', 'nope'],
       integrations_config_defaults: { nope2: {} } },
     [issue('custom', 'Integration does not exist', 'allowed_integrations',
            '1'),
      issue('custom', 'Integration does not exist',
            'integrations_config_defaults', 'nope2')]],
    ['defaults',
     { tags: {}, integrations_config_defaults: { github: {
         user_scopes: 'a,b',
         authorization_params: { login_hint: 'a@b.co' },
         connection_config: { subdomain: 'x', any: { thing: 1 } },
     } } }, []],
    ['an unknown default',
     { tags: {}, integrations_config_defaults: { github: { scopes: 'a' } } },
     [issue('unrecognized_keys', 'Unrecognized key: "scopes"',
            'integrations_config_defaults', 'github')]],
    ['a parameter that is no text',
     { tags: {}, integrations_config_defaults: {
         github: { authorization_params: { a: 1 } } } },
     [expected('string', 'number', 'integrations_config_defaults', 'github',
               'authorization_params', 'a')]],
    ['overrides', { tags: {}, overrides: {
        github: { docs_connect: 'https://example.com/' } } }, []],
    ['a webhook URL', { tags: {},
                        webhook_url_override: 'https://example.com/' }, []],
    ['a webhook URL that is none', { tags: {}, webhook_url_override: 'x' },
     [issue('invalid_union', 'Invalid input', 'webhook_url_override')]],
    ["Nango's own URL", { tags: {},
                          webhook_url_override: 'https://api.nango.dev/' },
     [issue('custom', "Webhook URLs cannot point to Nango's domain "
                      + '(nango.dev).', 'webhook_url_override')]],
];

const LISTS = [
    ['limit=1&page=0', []],
    ['limit=2000', []],
    ['tags[end_user_id]=42', []],
    ['tags%5Bend_user_id%5D=42&integrationId=github,slack', []],
    ['limit=0', [issue('too_small',
                       'Too small: expected number to be >=1', 'limit')]],
    ['limit=2001', [issue('too_big',
                          'Too big: expected number to be <=2000', 'limit')]],
    ['limit=x', [expected('number', 'NaN', 'limit')]],
    ['page=-1', [issue('too_small',
                       'Too small: expected number to be >=0', 'page')]],
    ['tags=x', [expected('record', 'string', 'tags')]],
    ['tags[1a]=x', [badKey('tags', '1a')]],
    ['cursor=x', [issue('unrecognized_keys', 'Unrecognized key: "cursor"')]],
];


test('the body of a session', async (t) => {
    const nango = await h.start(t);

    for (const [name, body, errors] of SESSIONS) {
        await t.test(name, async () => {
            const answer = await h.call(nango, 'POST', '/connect/sessions',
                                        body);

            if (errors.length === 0) {
                assert.strictEqual(answer.status, 201, answer.text);
                return;
            }

            assert.strictEqual(answer.status, 400);
            assert.deepStrictEqual(answer.json,
                                   { error: { code: 'invalid_body',
                                              errors } });
        });
    }
});


test('the query of a list', async (t) => {
    const nango = await h.start(t);

    for (const [query, errors] of LISTS) {
        await t.test(query, async () => {
            const answer = await h.call(nango, 'GET', `/connections?${query}`);

            if (errors.length === 0) {
                assert.strictEqual(answer.status, 200, answer.text);
                return;
            }

            assert.strictEqual(answer.status, 400);
            assert.deepStrictEqual(answer.json.error,
                                   { code: 'invalid_query_params', errors });
        });
    }
});


test('queries where none belongs', async (t) => {
    const nango = await h.start(t);

    for (const [method, url] of [['POST', '/connect/sessions'],
        ['POST', '/connect/sessions/reconnect'], ['GET', '/integrations'],
        ['POST', '/environment/webhook-signing-key/rotate']])
    {
        const answer = await h.call(nango, method, `${url}?env=dev`,
                                    method === 'POST' ? { tags: {} }
                                                      : undefined);

        assert.strictEqual(answer.status, 400, url);
        assert.deepStrictEqual(answer.json.error, {
            code: 'invalid_query_params',
            errors: [issue('unrecognized_keys', 'Unrecognized key: "env"')],
        });
    }
});


test('the body of a reconnect', async (t) => {
    const nango = await h.start(t);

    const answer = await h.call(nango, 'POST', '/connect/sessions/reconnect',
                                { connection_id: 'a<b', tags: {},
                                  allowed_integrations: ['github'] });

    assert.strictEqual(answer.status, 400);
    assert.deepStrictEqual(
        answer.json.error.errors.map((e) => [e.code, e.path.join('.')]), [
            ['invalid_format', 'connection_id'],
            ['invalid_type', 'integration_id'],
            ['unrecognized_keys', ''],
        ]);
});


test('bodies that are not JSON', async (t) => {
    const nango = await h.start(t);
    const post = (text, type) =>
        h.call(nango, 'POST', '/connect/sessions', undefined,
               { text, headers: type ? { 'content-type': type } : {} });

    const wrongType = await post('tags=1',
                                 'application/x-www-form-urlencoded');

    assert.strictEqual(wrongType.status, 415);
    assert.deepStrictEqual(wrongType.json, { error: {
        code: 'invalid_content_type',
        message: 'Content-Type header must be application/json',
    } });

    for (const text of ['{"tags":', '"text"', 'null', '{} {}']) {
        const broken = await post(text);

        assert.strictEqual(broken.status, 400, text);
        assert.strictEqual(broken.json.error.code, 'invalid_json');
    }

    const charset = await post('{"tags":{}}',
                               'application/json; charset=utf-8');

    assert.strictEqual(charset.status, 201);

    /* An empty body that says it is JSON counts as {}. */
    const empty = await post('');

    assert.strictEqual(empty.json.error.errors[0].path[0], 'end_user');
});


test('the old fields become tags', async (t) => {
    const nango = await h.start(t);

    const cases = [
        [{ end_user: { id: 'u', email: 'a@b.co', display_name: 'U',
                       tags: { Plan: 'pro' } },
           organization: { id: 'o', display_name: 'O' } },
         { end_user_id: 'u', end_user_email: 'a@b.co',
           end_user_display_name: 'U', organization_id: 'o',
           organization_display_name: 'O', plan: 'pro' }],
        [{ end_user: { id: 'u', tags: { team: 'red', a: '1' } },
           tags: { End_User_Id: 'v', team: 'blue' } },
         { end_user_id: 'v', team: 'blue', a: '1' }],
        [{ end_user: { id: 'u', tags: { end_user_id: 'v' } } },
         { end_user_id: 'v' }],
        [{ tags: { TEAM: 'Blue' } }, { team: 'Blue' }],
        [{ end_user: { id: 'u', tags: many(10) } }, { end_user_id: 'u' }],
    ];

    for (const [body, tags] of cases) {
        const token = await h.session(nango, body);

        assert.deepStrictEqual({ ...nango.state.session(token).tags }, tags);
    }
});
