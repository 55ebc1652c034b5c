/*
 * Copyright (C) nginx-nango authors
 *
 * The credentials of a connection, out of Nango's reply to GET
 * /connections/ID, in a form that can be copied and kept: the string, number
 * and boolean members of "credentials" (but "raw", what the provider sent) and
 * of "connection_config".
 *
 * They end in headers of requests.  So a value with control characters is left
 * out: a line break would begin a header of its own.  Any thread.
 */

#ifndef _NANGO_CREDENTIAL_H_INCLUDED_
#define _NANGO_CREDENTIAL_H_INCLUDED_


#include "nango_str.h"


/*
 * Packs what is in reply into at most size bytes at dst.  0 and *len; -1: it
 * is no reply about this connection; -2: it does not fit.  *expires is set to
 * when the credentials do, in ms since 1970, 0 if they do not say.
 */
int nango_credential_pack(nango_str_t reply, nango_str_t integration,
    nango_str_t connection_id, unsigned char *dst, size_t size, size_t *len,
    uint64_t *expires);

/*
 * A member by its name, letters in either case; absent if there is none.
 * Points into packed, whose bytes _pack() has written.
 */
nango_str_t nango_credential_field(nango_str_t packed, nango_str_t name);
nango_str_t nango_config_field(nango_str_t packed, nango_str_t name);

/*
 * What an API call needs: an access token, an API key; of BASIC the password.
 * Absent for kinds that have none.
 */
nango_str_t nango_credential_secret(nango_str_t packed);

/*
 * The value of an Authorization header with it: "Bearer ..." or "Basic ...".
 * Returns its length, 0 if there is none; dst may be NULL, else it takes that
 * many bytes.
 */
size_t nango_credential_authorization(nango_str_t packed, unsigned char *dst);


#endif /* _NANGO_CREDENTIAL_H_INCLUDED_ */
