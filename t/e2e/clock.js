/*
 * An nginx whose clocks are put forward by hours, or the wall's clock alone,
 * which may be put back too:
 *
 *     const clock = await startOnClock(t, nginx);
 *     const clock = await startOnClock(t, nginx, { wall: true, ahead: HOUR });
 *     clock.forward(ms), clock.now()
 */

'use strict';

const fs = require('node:fs');
const path = require('node:path');

const { compile } = require('./model');

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;


async function startOnClock(t, nginx, { wall, ahead = 0 } = {}) {
    const shim = compile(t, 'shim_clock.c', '-shared', '-fPIC', '-ldl');
    const control = path.join(nginx.dir, 'clock');
    const bytes = Buffer.alloc(8);

    bytes.writeBigInt64LE(BigInt(ahead));
    fs.writeFileSync(control, bytes);

    const fd = fs.openSync(control, 'r+');

    t.after(() => fs.closeSync(fd));

    await nginx.start({ LD_PRELOAD: shim, NANGO_CLOCK: control,
                        ...(wall ? { NANGO_CLOCK_WALL: '1' } : {}) });

    return {
        now: () => Date.now() + ahead,
        forward: (ms) => {
            ahead += ms;
            bytes.writeBigInt64LE(BigInt(ahead));
            fs.writeSync(fd, bytes, 0, 8, 0);
        },
    };
}


module.exports = { startOnClock, SECOND, MINUTE, HOUR };
