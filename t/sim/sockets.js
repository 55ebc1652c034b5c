/*
 * The WebSockets by which Nango tells a page how the popup that it opened has
 * ended.  Each client gets an id of its own first, hands that to the popup's
 * address, and hears once what came of it.  Only what this needs of RFC 6455:
 * text to the client, and a client that closes.
 */

'use strict';

const crypto = require('node:crypto');

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const TEXT = 0x1;
const CLOSE = 0x8;
const FINAL = 0x80;


/* A whole, unmasked frame. */
function frame(opcode, payload) {
    const data = Buffer.from(payload);
    let head;

    if (data.length < 126) {
        head = Buffer.from([FINAL | opcode, data.length]);

    } else {
        head = Buffer.alloc(4);
        head[0] = FINAL | opcode;
        head[1] = 126;
        head.writeUInt16BE(data.length, 2);
    }

    return Buffer.concat([head, data]);
}


class Sockets {
    constructor() {
        this.clients = new Map();
    }

    /* A request with "Upgrade", and what it is sent over. */
    upgrade(req, socket) {
        const key = req.headers['sec-websocket-key'];

        if (!key || !/^websocket$/i.test(req.headers.upgrade || '')) {
            socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n'
                       + 'Connection: close\r\n\r\n');
            return;
        }

        const id = crypto.randomUUID();
        const accept = crypto.createHash('sha1').update(key + GUID)
            .digest('base64');

        this.clients.set(id, socket);
        socket.on('close', () => this.clients.delete(id));
        socket.on('data', (data) => {
            if ((data[0] & 0xf) === CLOSE) {
                this.clients.delete(id);
                socket.end(frame(CLOSE, ''));
            }
        });

        socket.write('HTTP/1.1 101 Switching Protocols\r\n'
                     + 'Upgrade: websocket\r\nConnection: Upgrade\r\n'
                     + `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
        this.tell(id, { message_type: 'connection_ack', ws_client_id: id });
    }

    /* Clients that are gone, or never were, hear nothing. */
    tell(id, message) {
        const socket = this.clients.get(id);

        if (socket) {
            socket.write(frame(TEXT, JSON.stringify(message)));
        }
    }
}


module.exports = { Sockets };
