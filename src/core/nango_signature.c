/*
 * Copyright (C) nginx-nango authors
 *
 * HMAC-SHA256 over two prepared digests a key: one that has taken in the
 * key's inner pad, one its outer pad.  To verify is to copy both, which with
 * OpenSSL 3.0 is the quickest of its clean ways (520 bytes: 0.55 us, against
 * 0.78 us with EVP_MAC_CTX_dup() and 0.62 us where the pads are taken in each
 * time), and reads the set without writing to it, so that threads share it.
 *
 * Promises: no early exit in a comparison; all keys are tried whichever fits;
 * no key material in freed memory; an empty error queue.
 */


#include "nango_signature.h"
#include "nango_hash.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include <stdlib.h>


#define NANGO_HMAC_BLOCK   64
#define NANGO_KEY_LEN_MAX  4096


typedef struct {
    EVP_MD_CTX         *inner;
    EVP_MD_CTX         *outer;
} nango_hmac_t;


struct nango_keys_s {
    EVP_MD             *md;
    size_t              n;
    nango_hmac_t        keys[NANGO_KEYS_MAX];
};


struct nango_verify_s {
    const nango_keys_t *keys;
    int                 failed;
    EVP_MD_CTX         *inner[];
};


static int nango_hmac_init(nango_hmac_t *hmac, const EVP_MD *md,
    nango_str_t key);
static void nango_hmac_free(nango_hmac_t *hmac);
static int nango_hmac_finish(const nango_hmac_t *hmac, EVP_MD_CTX *ctx,
    unsigned char mac[NANGO_HMAC_LEN]);


nango_keys_t *
nango_keys_create(void)
{
    nango_keys_t  *keys;

    keys = calloc(1, sizeof(nango_keys_t));

    if (keys == NULL) {
        return NULL;
    }

    keys->md = EVP_MD_fetch(NULL, "SHA256", NULL);

    if (keys->md == NULL) {
        ERR_clear_error();
        free(keys);
        return NULL;
    }

    return keys;
}


void
nango_keys_free(nango_keys_t *keys)
{
    size_t  i;

    if (keys == NULL) {
        return;
    }

    for (i = 0; i < keys->n; i++) {
        nango_hmac_free(&keys->keys[i]);
    }

    EVP_MD_free(keys->md);
    free(keys);
}


int
nango_keys_add(nango_keys_t *keys, nango_str_t key)
{
    if (key.len == 0 || key.len > NANGO_KEY_LEN_MAX
        || keys->n == NANGO_KEYS_MAX)
    {
        return -1;
    }

    if (nango_hmac_init(&keys->keys[keys->n], keys->md, key) != 0) {
        ERR_clear_error();
        return -1;
    }

    keys->n++;

    return 0;
}


size_t
nango_keys_count(const nango_keys_t *keys)
{
    return keys->n;
}


static int
nango_hmac_init(nango_hmac_t *hmac, const EVP_MD *md, nango_str_t key)
{
    int            rc;
    size_t         i;
    unsigned char  block[NANGO_HMAC_BLOCK];

    rc = -1;
    memset(block, 0, sizeof(block));

    hmac->inner = EVP_MD_CTX_new();
    hmac->outer = EVP_MD_CTX_new();

    if (hmac->inner == NULL || hmac->outer == NULL) {
        goto done;
    }

    if (key.len <= sizeof(block)) {
        memcpy(block, key.data, key.len);

    } else if (EVP_DigestInit_ex2(hmac->inner, md, NULL) != 1
               || EVP_DigestUpdate(hmac->inner, key.data, key.len) != 1
               || EVP_DigestFinal_ex(hmac->inner, block, NULL) != 1)
    {
        goto done;
    }

    for (i = 0; i < sizeof(block); i++) {
        block[i] ^= 0x36;
    }

    if (EVP_DigestInit_ex2(hmac->inner, md, NULL) != 1
        || EVP_DigestUpdate(hmac->inner, block, sizeof(block)) != 1)
    {
        goto done;
    }

    for (i = 0; i < sizeof(block); i++) {
        block[i] ^= 0x36 ^ 0x5c;
    }

    if (EVP_DigestInit_ex2(hmac->outer, md, NULL) != 1
        || EVP_DigestUpdate(hmac->outer, block, sizeof(block)) != 1)
    {
        goto done;
    }

    rc = 0;

done:

    OPENSSL_cleanse(block, sizeof(block));

    if (rc != 0) {
        nango_hmac_free(hmac);
    }

    return rc;
}


static void
nango_hmac_free(nango_hmac_t *hmac)
{
    /* libcrypto wipes a digest's state as it frees it */

    EVP_MD_CTX_free(hmac->inner);
    EVP_MD_CTX_free(hmac->outer);

    hmac->inner = NULL;
    hmac->outer = NULL;
}


static int
nango_hmac_finish(const nango_hmac_t *hmac, EVP_MD_CTX *ctx,
    unsigned char mac[NANGO_HMAC_LEN])
{
    if (EVP_DigestFinal_ex(ctx, mac, NULL) != 1
        || EVP_MD_CTX_copy_ex(ctx, hmac->outer) != 1
        || EVP_DigestUpdate(ctx, mac, NANGO_HMAC_LEN) != 1
        || EVP_DigestFinal_ex(ctx, mac, NULL) != 1)
    {
        return -1;
    }

    return 0;
}


int
nango_signature_parse(nango_str_t hex, unsigned char mac[NANGO_HMAC_LEN])
{
    unsigned char  buf[NANGO_HMAC_LEN];

    if (nango_unhex(buf, sizeof(buf), hex) != 0) {
        return -1;
    }

    memcpy(mac, buf, sizeof(buf));

    return 0;
}


nango_verify_t *
nango_verify_start(const nango_keys_t *keys)
{
    size_t           i;
    nango_verify_t  *v;

    v = calloc(1, sizeof(nango_verify_t) + keys->n * sizeof(EVP_MD_CTX *));

    if (v == NULL) {
        return NULL;
    }

    v->keys = keys;

    for (i = 0; i < keys->n; i++) {
        v->inner[i] = EVP_MD_CTX_new();

        if (v->inner[i] == NULL
            || EVP_MD_CTX_copy_ex(v->inner[i], keys->keys[i].inner) != 1)
        {
            nango_verify_abort(v);
            ERR_clear_error();
            return NULL;
        }
    }

    return v;
}


int
nango_verify_update(nango_verify_t *v, const void *data, size_t len)
{
    size_t  i;

    if (len == 0) {
        return v->failed ? -1 : 0;
    }

    for (i = 0; i < v->keys->n; i++) {
        if (EVP_DigestUpdate(v->inner[i], data, len) != 1) {
            v->failed = 1;
        }
    }

    if (v->failed) {
        ERR_clear_error();
        return -1;
    }

    return 0;
}


int
nango_verify_finish(nango_verify_t *v, const unsigned char mac[NANGO_HMAC_LEN])
{
    int            good, failed;
    size_t         i;
    unsigned char  own[EVP_MAX_MD_SIZE];

    good = 0;
    failed = v->failed;

    for (i = 0; i < v->keys->n && !failed; i++) {

        if (nango_hmac_finish(&v->keys->keys[i], v->inner[i], own) != 0) {
            failed = 1;
            break;
        }

        good |= (CRYPTO_memcmp(own, mac, NANGO_HMAC_LEN) == 0);
    }

    /* what it should have been would sign a forged body */

    OPENSSL_cleanse(own, sizeof(own));
    nango_verify_abort(v);

    if (failed) {
        ERR_clear_error();
        return -1;
    }

    return good;
}


void
nango_verify_abort(nango_verify_t *v)
{
    size_t  i;

    if (v == NULL) {
        return;
    }

    for (i = 0; i < v->keys->n; i++) {
        EVP_MD_CTX_free(v->inner[i]);
    }

    free(v);
}


int
nango_verify(const nango_keys_t *keys, nango_str_t body,
    const unsigned char mac[NANGO_HMAC_LEN])
{
    nango_verify_t  *v;

    v = nango_verify_start(keys);

    if (v == NULL) {
        return -1;
    }

    /* a failure is kept in v and told by the end */

    (void) nango_verify_update(v, body.data, body.len);

    return nango_verify_finish(v, mac);
}


int
nango_sign(const nango_keys_t *keys, nango_str_t body,
    unsigned char mac[NANGO_HMAC_LEN])
{
    int            rc;
    EVP_MD_CTX    *ctx;
    unsigned char  own[EVP_MAX_MD_SIZE];

    if (keys->n == 0) {
        return -1;
    }

    rc = -1;
    ctx = EVP_MD_CTX_new();

    if (ctx == NULL
        || EVP_MD_CTX_copy_ex(ctx, keys->keys[0].inner) != 1
        || (body.len != 0 && EVP_DigestUpdate(ctx, body.data, body.len) != 1)
        || nango_hmac_finish(&keys->keys[0], ctx, own) != 0)
    {
        goto done;
    }

    memcpy(mac, own, NANGO_HMAC_LEN);
    rc = 0;

done:

    EVP_MD_CTX_free(ctx);

    if (rc != 0) {
        ERR_clear_error();
    }

    return rc;
}
