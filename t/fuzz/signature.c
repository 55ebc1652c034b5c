/*
 * Copyright (C) nginx-nango authors
 *
 * The signature: a line with the header's value, a line with keys between
 * blanks, then the body.  What is compared with is OpenSSL's own HMAC().
 */


#include "fuzz.h"

#include "nango_hash.h"
#include "nango_signature.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>


static int
hex_value(unsigned char c)
{
    static const char  digits[] = "0123456789abcdef0123456789ABCDEF";
    const char        *p;

    p = c ? strchr(digits, c) : NULL;

    return p ? (int) (p - digits) % 16 : -1;
}


static int
verify_pieces(const nango_keys_t *keys, nango_str_t body, size_t step,
    const unsigned char mac[NANGO_HMAC_LEN])
{
    nango_verify_t  *v;

    v = nango_verify_start(keys);
    check(v != NULL);

    while (body.len) {
        if (step > body.len) {
            step = body.len;
        }

        check(nango_verify_update(v, body.data, step) == 0);

        body.data += step;
        body.len -= step;
    }

    return nango_verify_finish(v, mac);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int            good, parsed, expected;
    size_t         i, n;
    nango_str_t    in, line, header, key;
    nango_keys_t  *keys;
    unsigned char  mac[NANGO_HMAC_LEN], own[NANGO_HMAC_LEN];
    unsigned char  hex[NANGO_HMAC_LEN * 2], before[NANGO_HMAC_LEN];

    in = nango_str(data, size);
    line = take(&in, '\n');
    header = exact(line);
    line = take(&in, '\n');

    good = (header.len == NANGO_HMAC_LEN * 2);

    for (i = 0; i < header.len; i++) {
        good = good && hex_value(header.data[i]) >= 0;
    }

    memset(mac, 0xa5, sizeof(mac));
    memcpy(before, mac, sizeof(mac));

    parsed = nango_signature_parse(header, mac);

    check(parsed == (good ? 0 : -1));

    if (good) {
        for (i = 0; i < NANGO_HMAC_LEN; i++) {
            check(mac[i] == hex_value(header.data[2 * i]) * 16
                            + hex_value(header.data[2 * i + 1]));
        }

        nango_hex(hex, mac, sizeof(mac));
        check(nango_signature_parse(nango_str(hex, sizeof(hex)), own) == 0);
        check(memcmp(own, mac, sizeof(mac)) == 0);

    } else {
        check(memcmp(mac, before, sizeof(mac)) == 0);
    }

    exact_free(header);

    keys = nango_keys_create();
    check(keys != NULL);

    expected = 0;
    n = 0;

    while (line.len) {
        key = exact(take(&line, ' '));
        good = (key.len >= 1 && key.len <= 4096 && n < NANGO_KEYS_MAX);

        check(nango_keys_add(keys, key) == (good ? 0 : -1));

        if (good) {
            check(HMAC(EVP_sha256(), key.data, (int) key.len, in.data, in.len,
                       own, NULL)
                  != NULL);

            if (memcmp(own, mac, NANGO_HMAC_LEN) == 0) {
                expected = 1;
            }

            if (n++ == 0) {
                memcpy(before, own, NANGO_HMAC_LEN);
            }
        }

        exact_free(key);
    }

    check(nango_keys_count(keys) == n);
    check(nango_verify(keys, in, mac) == expected);
    check(verify_pieces(keys, in, 1 + in.len / 3, mac) == expected);

    if (n == 0) {
        check(nango_sign(keys, in, own) == -1);

    } else {
        check(nango_sign(keys, in, own) == 0);
        check(memcmp(own, before, NANGO_HMAC_LEN) == 0);
        check(nango_verify(keys, in, own) == 1);

        for (i = 0; i < NANGO_HMAC_LEN; i++) {
            own[i] ^= 0x80;
            check(nango_verify(keys, in, own) == 0);
            own[i] ^= 0x80;
        }
    }

    nango_keys_free(keys);

    check(ERR_peek_error() == 0);

    return 0;
}
