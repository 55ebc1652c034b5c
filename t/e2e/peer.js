/*
 * Whoever answers in Nango's place: a server of bare bytes, which does to each
 * request for a session what the tag "end_user_id" in it names.
 *
 *     const peer = await create(t, { cut: (socket) => socket.end('HT') });
 *
 * Users that name nothing get a session of their own.  A user is "what" or
 * "what-anything", so that the same can be asked for by many.
 */

'use strict';

const net = require('node:net');
const tls = require('node:tls');

const JSON_TYPE = 'Content-Type: application/json; charset=utf-8';


/* Whose token it is can be seen. */
function token(user) {
    return 'nango_connect_session_' + Buffer.from(user).toString('hex');
}


function session(user, members) {
    return JSON.stringify({
        data: {
            token: token(user),
            connect_link: 'https://connect.example.com/?session_token='
                          + token(user),
            expires_at: '2030-01-01T00:00:00.000Z',
            ...members,
        },
    });
}


/* The bytes of a reply whose body's end is told by its length. */
function reply(status, lines, body) {
    return `HTTP/1.1 ${status} Some Words\r\n`
           + [...lines, `Content-Length: ${Buffer.byteLength(body)}`]
               .map((line) => `${line}\r\n`).join('')
           + `\r\n${body}`;
}


/* A session in each framing; until the connection is closed among them. */
const FRAMINGS = {
    length: (user) => reply(201, [JSON_TYPE], session(user)),

    chunked(user) {
        const body = session(user);
        const half = body.length >> 1;

        return `HTTP/1.1 201 Created\r\n${JSON_TYPE}\r\n`
               + 'Transfer-Encoding: chunked\r\n\r\n'
               + `${half.toString(16)}\r\n${body.slice(0, half)}\r\n`
               + `${(body.length - half).toString(16)};a=b\r\n`
               + `${body.slice(half)}\r\n0\r\n\r\n`;
    },

    close: (user) => `HTTP/1.1 201 Created\r\n${JSON_TYPE}\r\n`
                     + `Connection: close\r\n\r\n${session(user)}`,
};


class Peer {
    constructor(what, options) {
        this.what = what;
        this.requests = [];
        this.sockets = new Set();
        this.connections = 0;

        const accept = (socket) => this.accept(socket);

        this.server = options && options.key
                      ? tls.createServer(options, accept)
                      : net.createServer(accept);

        /* Before a handshake is over there are sockets as well. */
        this.server.on('connection', (socket) => {
            this.connections++;
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
            socket.on('error', () => {});
        });
        this.server.on('tlsClientError', () => {});
    }

    listen(port) {
        return new Promise((resolve, reject) => {
            this.server.once('error', reject);
            this.server.listen(port || 0, '127.0.0.1', () => {
                this.port = this.server.address().port;
                resolve();
            });
        });
    }

    accept(socket) {
        let data = Buffer.alloc(0);

        const number = this.connections;

        socket.setNoDelay(true);
        socket.on('error', () => {});
        socket.on('data', (bytes) => {
            data = Buffer.concat([data, bytes]);

            const end = data.indexOf('\r\n\r\n');

            if (end < 0) {
                return;
            }

            const head = data.subarray(0, end).toString('latin1');
            const length = /^content-length: (\d+)$/im.exec(head);
            const total = end + 4 + (length ? Number(length[1]) : 0);

            if (data.length < total) {
                return;
            }

            const body = data.subarray(end + 4, total).toString();
            const user = (/"end_user_id":"([^"]*)"/.exec(body) || [])[1] || '';

            data = data.subarray(total);

            const request = { head, body, user, number };

            this.requests.push(request);
            this.answer(socket, request);
        });
    }

    answer(socket, request) {
        const what = this.what[request.user.split('-')[0]];

        if (what) {
            what(socket, request);
        } else {
            socket.write(FRAMINGS.length(request.user));
        }
    }

    /* What was asked for one of these users. */
    of(name) {
        return this.requests.filter((request) => request.user === name
            || request.user.startsWith(`${name}-`));
    }

    drop() {
        this.sockets.forEach((socket) => socket.destroy());
    }

    close() {
        this.drop();

        return new Promise((resolve) => { this.server.close(resolve); });
    }
}


async function create(t, what, options, port) {
    const peer = new Peer(what, options);

    await peer.listen(port);
    t.after(() => peer.close());

    return peer;
}


module.exports = { create, reply, session, token, FRAMINGS, JSON_TYPE };
