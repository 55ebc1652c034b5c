/*
 * Posts what is too large to be made beside a clock that is being read: a
 * thread of its own, which answers with the status of each.
 */

'use strict';

const { parentPort, workerData } = require('node:worker_threads');

const { creation, signed } = require('./edge');
const { chunked, once, post } = require('./wire');

const MAKE = {
    large: (n) => creation(`large-${n}`, 75 * 1024 * 1024),

    members: (n) => Buffer.from(`{"connectionId":"members-${n}",${
        Array.from({ length: 1000000 }, (_, i) => `"member-${i}":${i}`)
            .join(',')},"type":"auth"}`),

    depth: (n) => Buffer.from(`{"connectionId":"depth-${n}","tags":${
        '{"a":['.repeat(50000)}${']}'.repeat(50000)},"type":"auth"}`),

    memory: (n) => Buffer.from(`{"connectionId":"memory-${n}",${
        Array.from({ length: 10000 }, (_, i) => `"m${i}":[]`)
            .join(',')},"type":"auth"}`),
};


async function main() {
    const { port, kind, count } = workerData;
    const requests = Array.from({ length: count }, (_, n) => {
        const body = MAKE[kind](n);

        return n % 2 ? chunked('/webhook', signed(body), body, 1 << 20)
                     : post('/webhook', signed(body), body);
    });

    parentPort.postMessage('ready');
    await new Promise((resolve) => { parentPort.once('message', resolve); });

    const answers = [];

    for (const request of requests) {
        answers.push((await once(port, request)).status);
    }

    parentPort.postMessage(answers);
    parentPort.close();
}


main();
