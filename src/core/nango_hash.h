/*
 * Copyright (C) nginx-nango authors
 *
 * Keys of fixed length for things whose names come from outside.  LMDB's keys
 * end at 511 bytes and ids do not; and no outside byte should be able to
 * shape an index.  The full strings are in the records and are compared at
 * every read, so a collision of truncated hashes could at most hide.
 */

#ifndef _NANGO_HASH_H_INCLUDED_
#define _NANGO_HASH_H_INCLUDED_


#include "nango_str.h"


#define NANGO_KEY_LEN  16


/*
 * The first NANGO_KEY_LEN bytes of SHA-256 over the parts, each preceded by
 * its length as 4 bytes, big endian, and the whole by one byte that names the
 * kind ('c' connection, 'o' owner, 'e' environment, 's' subscriber).  0, or
 * -1 if libcrypto failed.  Any thread.
 */
int nango_connection_key(unsigned char key[NANGO_KEY_LEN],
    nango_str_t environment, nango_str_t integration,
    nango_str_t connection_id);
int nango_owner_key(unsigned char key[NANGO_KEY_LEN], nango_str_t environment,
    nango_str_t tag, nango_str_t value);
int nango_environment_key(unsigned char key[NANGO_KEY_LEN],
    nango_str_t environment);
int nango_subscriber_key(unsigned char key[NANGO_KEY_LEN],
    nango_str_t environment, nango_str_t name);

/* dst takes 2 * len bytes, lower case, no zero byte at the end. */
void nango_hex(unsigned char *dst, const unsigned char *src, size_t len);

/* Exactly 2 * len hex digits of either case: 0, else -1. */
int nango_unhex(unsigned char *dst, size_t len, nango_str_t hex);


#endif /* _NANGO_HASH_H_INCLUDED_ */
