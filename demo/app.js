#!/usr/bin/env node
/*
 * The application of the demo: it knows its users, and has a backend that
 * wants to know which connection is theirs.  No word of Nango's API, keys or
 * webhooks is in it; nginx asks it who somebody is (auth_request), and tells
 * it the connection in a header (nango_require).
 *
 *     app.js --port PORT        on the loopback interface, 0 for any
 *
 * It prints "listening on ..." once it does.  Users are ann and bob, their
 * passwords are their names, and who is logged in is kept in memory.
 */

'use strict';

const crypto = require('node:crypto');
const http = require('node:http');

const USERS = ['ann', 'bob'];
const COOKIE = 'demo_session';
const MAX_BODY = 4096;
const MAX_SESSIONS = 10000;

const sessions = new Map();


function known(user, password) {
    return USERS.includes(user) && password === user ? user : null;
}


/* By the cookie of a page, or by name and password as curl sends them. */
function userOf(req) {
    const cookie = new RegExp(`(?:^|; *)${COOKIE}=([^;]*)`)
        .exec(req.headers.cookie || '');

    if (cookie) {
        return sessions.get(cookie[1]) || null;
    }

    const basic = /^Basic +(\S+)$/i.exec(req.headers.authorization || '');

    if (!basic) {
        return null;
    }

    const [user, password] = Buffer.from(basic[1], 'base64').toString()
        .split(':');

    return known(user, password);
}


function send(res, status, value, headers) {
    res.writeHead(status, {
        'Content-Type': 'application/json',
        'Cache-Control': 'no-store',
        ...headers,
    });
    res.end(value === undefined ? '' : JSON.stringify(value));
}


/* No page of another site can make a browser send this type by itself. */
function readJson(req) {
    return new Promise((resolve, reject) => {
        let text = '';

        if (!/^application\/json\b/.test(req.headers['content-type'] || '')) {
            reject(new Error('not JSON'));
            return;
        }

        req.setEncoding('utf8');
        req.on('error', reject);
        req.on('data', (chunk) => {
            text += chunk;

            if (text.length > MAX_BODY) {
                reject(new Error('too long'));
                req.destroy();
            }
        });
        req.on('end', () => {
            try {
                resolve(JSON.parse(text));
            } catch (e) {
                reject(e);
            }
        });
    });
}


async function login(req, res) {
    const { user, password } = await readJson(req);

    if (!known(user, password)) {
        send(res, 401, { error: 'no such user' });
        return;
    }

    const id = crypto.randomBytes(24).toString('base64url');

    sessions.set(id, user);

    if (sessions.size > MAX_SESSIONS) {
        sessions.delete(sessions.keys().next().value);
    }

    send(res, 200, { user }, {
        'Set-Cookie': `${COOKIE}=${id}; Path=/; HttpOnly; SameSite=Lax`,
    });
}


/* For auth_request: who it is, in a header, or 401. */
function auth(req, res) {
    const user = userOf(req);

    if (user) {
        send(res, 200, undefined, { 'X-User': user });
    } else {
        send(res, 401);
    }
}


function me(req, res) {
    send(res, 200, { user: userOf(req) });
}


/* Of a secret its kind and four characters, for people to see it is there. */
function hint(credential) {
    return credential ? `${/^\S+ .{0,4}/.exec(credential) || ''}...` : null;
}


/* What the backend was handed. */
function report(req, res) {

    send(res, 200, {
        backend: 'This is your application. nginx has told it:',
        user: req.headers['x-user'],
        connection_id: req.headers['x-nango-connection-id'],
        authorization: hint(req.headers.authorization),
    });
}


const ROUTES = {
    'POST /login': login,
    'GET /me': me,
    'GET /auth': auth,
};


async function answer(req, res) {
    const path = req.url.split('?', 1)[0];
    const route = `${req.method} ${path}`;

    if (Object.hasOwn(ROUTES, route)) {
        await ROUTES[route](req, res);

    } else if (path.startsWith('/app/report/')) {
        report(req, res);

    } else {
        send(res, 404, { error: 'not found' });
    }
}


function main() {
    const [name, port] = process.argv.slice(2);

    if (name !== '--port' || !/^\d+$/.test(port || '')) {
        process.stderr.write('usage: app.js --port PORT\n');
        process.exit(2);
    }

    const server = http.createServer((req, res) => {
        answer(req, res).catch(() => {
            if (!res.headersSent) {
                send(res, 400, { error: 'bad request' });
            }
        });
    });

    server.keepAliveTimeout = 65000;
    server.listen(Number(port), '127.0.0.1', () => {
        process.stdout.write('listening on http://127.0.0.1:'
                             + `${server.address().port}\n`);
    });
    server.on('error', (e) => {
        process.stderr.write(`${e.message}\n`);
        process.exit(1);
    });
}


main();
