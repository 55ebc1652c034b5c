/*
 * Copyright (C) nginx-nango authors
 *
 * The signature of Nango's webhooks: X-Nango-Hmac-Sha256 is the hex form of
 * HMAC-SHA256(signing key, raw body).  X-Nango-Signature, which is
 * sha256(key || body), is open to length extension and never looked at.
 *
 * An environment has several keys while one is being rotated; a body is good
 * if any of them verifies it.
 */

#ifndef _NANGO_SIGNATURE_H_INCLUDED_
#define _NANGO_SIGNATURE_H_INCLUDED_


#include "nango_str.h"


#define NANGO_HMAC_LEN  32
#define NANGO_KEYS_MAX  16


typedef struct nango_keys_s    nango_keys_t;
typedef struct nango_verify_s  nango_verify_t;


/*
 * A set of signing keys, prepared once so that verifying does not pay for the
 * key schedule.  NULL if there is no memory.  Freed, and the keys wiped, by
 * nango_keys_free(), which accepts NULL.  While no key is being added, any
 * number of threads may use one set at the same time.
 */
nango_keys_t *nango_keys_create(void);
void nango_keys_free(nango_keys_t *keys);

/*
 * Adds a copy of a key of 1 to 4096 bytes.  0, or -1: empty or too long, more
 * than NANGO_KEYS_MAX keys, or no memory.
 */
int nango_keys_add(nango_keys_t *keys, nango_str_t key);

size_t nango_keys_count(const nango_keys_t *keys);


/*
 * Reads the header's value: exactly 64 hex digits of either case, which is
 * what Nango's own SDK accepts.  0, or -1 if it is anything else; then mac is
 * left as it was.
 */
int nango_signature_parse(nango_str_t hex, unsigned char mac[NANGO_HMAC_LEN]);

/*
 * Verifies a body that comes in pieces.  nango_verify_start() returns NULL if
 * there is no memory.  nango_verify_finish() ends the verification and frees
 * it: 1 if a key verifies, 0 if none does, -1 if libcrypto failed.  The
 * comparison takes the same time wherever the bytes differ and whichever key
 * it is.  nango_verify_abort() frees without an answer and accepts NULL.
 * One thread at a time for one verification; keys must outlive it.
 *
 * None of these leaves anything in OpenSSL's error queue.
 */
nango_verify_t *nango_verify_start(const nango_keys_t *keys);
int nango_verify_update(nango_verify_t *v, const void *data, size_t len);
int nango_verify_finish(nango_verify_t *v,
    const unsigned char mac[NANGO_HMAC_LEN]);
void nango_verify_abort(nango_verify_t *v);

/* The same for a body in one piece. */
int nango_verify(const nango_keys_t *keys, nango_str_t body,
    const unsigned char mac[NANGO_HMAC_LEN]);

/*
 * Signs with the first key of the set.  0, or -1: no key, no memory, or
 * libcrypto failed.
 */
int nango_sign(const nango_keys_t *keys, nango_str_t body,
    unsigned char mac[NANGO_HMAC_LEN]);


#endif /* _NANGO_SIGNATURE_H_INCLUDED_ */
