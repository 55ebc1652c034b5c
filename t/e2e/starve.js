/*
 * An nginx whose memory, descriptors or threads run out when they are told to;
 * see starve.c.
 */

'use strict';

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const WORDS = 7;
const MEMORY = 0;
const DESCRIPTORS = 1;
const THREADS = 2;

const AT_CONF = 1;
const AT_CURL = 2;


class Starve {
    constructor(t) {
        const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nango-e2e-'));

        t.after(() => {
            fs.closeSync(this.fd);
            fs.rmSync(dir, { recursive: true, force: true });
        });

        this.library = path.join(dir, 'starve.so');
        this.file = path.join(dir, 'words');

        execFileSync('cc', ['-O1', '-Wall', '-Wextra', '-Werror', '-shared',
                            '-fPIC', '-o', this.library,
                            path.join(__dirname, 'starve.c'), '-ldl']);

        /* Workers are somebody else. */
        fs.chmodSync(dir, 0o755);
        fs.writeFileSync(this.file, Buffer.alloc(8 * WORDS), { mode: 0o666 });
        this.fd = fs.openSync(this.file, 'r+');
        this.feed();
    }

    get env() {
        return { LD_PRELOAD: this.library, NANGO_STARVE: this.file };
    }

    get(word) {
        const buf = Buffer.alloc(8);

        fs.readSync(this.fd, buf, 0, 8, 8 * word);

        return Number(buf.readBigInt64LE());
    }

    set(word, value) {
        const buf = Buffer.alloc(8);

        buf.writeBigInt64LE(BigInt(value));
        fs.writeSync(this.fd, buf, 0, 8, 8 * word);
    }

    /* Those of this process are counted, and may be refused. */
    of(pid) {
        this.set(1, pid);
    }

    /* So many are granted; the next one is not, or none from there on. */
    arm(granted, options) {
        const { what, on, from } = options || {};

        this.set(0, -1);
        this.set(2, 0);
        this.set(3, what || MEMORY);
        this.set(4, on ? 1 : 0);
        this.set(5, from || 0);
        this.set(0, granted);
    }

    /* How many were refused meanwhile. */
    feed() {
        this.set(0, -1);

        return this.get(2);
    }

    get live() {
        return this.get(6);
    }
}


module.exports = { Starve, MEMORY, DESCRIPTORS, THREADS, AT_CONF, AT_CURL };
