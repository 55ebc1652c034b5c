/*
 * Copyright (C) nginx-nango authors
 *
 * Hashed keys.  Each webhook costs several of them, so SHA-256 is looked up
 * once and kept for the life of the process: asking libcrypto for it by name
 * each time takes longer than the hash.  What is hashed is unambiguous: no
 * part can run into its neighbour, and no kind of key can pass for another.
 */


#include "nango_hash.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <stdatomic.h>


static int nango_key(unsigned char key[NANGO_KEY_LEN], unsigned char kind,
    const nango_str_t *parts, size_t n);
static const EVP_MD *nango_sha256(void);
static int nango_unhex_digit(unsigned char c);


static _Atomic(EVP_MD *)  nango_sha256_md;


int
nango_connection_key(unsigned char key[NANGO_KEY_LEN],
    nango_str_t environment, nango_str_t integration,
    nango_str_t connection_id)
{
    nango_str_t  parts[3];

    parts[0] = environment;
    parts[1] = integration;
    parts[2] = connection_id;

    return nango_key(key, 'c', parts, 3);
}


int
nango_owner_key(unsigned char key[NANGO_KEY_LEN], nango_str_t environment,
    nango_str_t tag, nango_str_t value)
{
    nango_str_t  parts[3];

    parts[0] = environment;
    parts[1] = tag;
    parts[2] = value;

    return nango_key(key, 'o', parts, 3);
}


int
nango_environment_key(unsigned char key[NANGO_KEY_LEN],
    nango_str_t environment)
{
    return nango_key(key, 'e', &environment, 1);
}


int
nango_subscriber_key(unsigned char key[NANGO_KEY_LEN], nango_str_t environment,
    nango_str_t name)
{
    nango_str_t  parts[2];

    parts[0] = environment;
    parts[1] = name;

    return nango_key(key, 's', parts, 2);
}


static int
nango_key(unsigned char key[NANGO_KEY_LEN], unsigned char kind,
    const nango_str_t *parts, size_t n)
{
    int            rc;
    size_t         i, len;
    EVP_MD_CTX    *ctx;
    const EVP_MD  *md;
    unsigned char  head[5], hash[EVP_MAX_MD_SIZE];

    rc = -1;
    md = nango_sha256();
    ctx = (md != NULL) ? EVP_MD_CTX_new() : NULL;

    if (ctx == NULL || EVP_DigestInit_ex2(ctx, md, NULL) != 1) {
        goto done;
    }

    head[0] = kind;

    for (i = 0; i < n; i++) {
        len = parts[i].len;

        if (len > UINT32_MAX) {
            goto done;
        }

        head[1] = (unsigned char) (len >> 24);
        head[2] = (unsigned char) (len >> 16);
        head[3] = (unsigned char) (len >> 8);
        head[4] = (unsigned char) len;

        /* the kind goes before the first length only */

        if (EVP_DigestUpdate(ctx, head + (i != 0), 5 - (i != 0)) != 1
            || (len != 0 && EVP_DigestUpdate(ctx, parts[i].data, len) != 1))
        {
            goto done;
        }
    }

    if (EVP_DigestFinal_ex(ctx, hash, NULL) != 1) {
        goto done;
    }

    memcpy(key, hash, NANGO_KEY_LEN);
    rc = 0;

done:

    EVP_MD_CTX_free(ctx);

    if (rc != 0) {
        ERR_clear_error();
    }

    return rc;
}


static const EVP_MD *
nango_sha256(void)
{
    EVP_MD  *md, *other;

    md = atomic_load_explicit(&nango_sha256_md, memory_order_acquire);

    if (md != NULL) {
        return md;
    }

    md = EVP_MD_fetch(NULL, "SHA256", NULL);

    if (md == NULL) {
        return NULL;
    }

    other = NULL;

    if (!atomic_compare_exchange_strong(&nango_sha256_md, &other, md)) {
        EVP_MD_free(md);
        md = other;
    }

    return md;
}


void
nango_hex(unsigned char *dst, const unsigned char *src, size_t len)
{
    size_t                      i;
    static const unsigned char  hex[] = "0123456789abcdef";

    for (i = 0; i < len; i++) {
        *dst++ = hex[src[i] >> 4];
        *dst++ = hex[src[i] & 0xf];
    }
}


int
nango_unhex(unsigned char *dst, size_t len, nango_str_t hex)
{
    int     high, low;
    size_t  i;

    if (hex.len / 2 != len || hex.len % 2 != 0) {
        return -1;
    }

    for (i = 0; i < len; i++) {
        high = nango_unhex_digit(hex.data[2 * i]);
        low = nango_unhex_digit(hex.data[2 * i + 1]);

        if (high < 0 || low < 0) {
            return -1;
        }

        dst[i] = (unsigned char) (high << 4 | low);
    }

    return 0;
}


static int
nango_unhex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }

    return -1;
}
