/*
 * Copyright (C) nginx-nango authors
 *
 * The query of a request for connections.
 */

#ifndef _NANGO_QUERY_H_INCLUDED_
#define _NANGO_QUERY_H_INCLUDED_


#include "nango_hash.h"
#include "nango_str.h"


#define NANGO_QUERY_LIMIT      100
#define NANGO_QUERY_LIMIT_MAX  1000


typedef struct {
    int                   one;          /* id= */
    unsigned char         key[NANGO_KEY_LEN];
    nango_str_t           integration;  /* absent: any */
    uint64_t              limit;
    uint64_t              before;       /* cursor=; 0: from the newest on */
    int                   has_since;
    uint64_t              since;
} nango_query_t;


/*
 * Reads what follows the question mark: "id", "integration" (aliases
 * "integration_id", "provider_config_key"), "limit", "cursor" and "since";
 * others are passed over.  Names are compared as nginx compares those of
 * $arg_name: as they stand there, in either case, and the first one counts.
 * In values "+" is a blank and %XX a byte; a "%" that is none is itself.
 *
 * NULL, or what is wrong: a sentence for the client, static.  integration
 * points into buf, which has room for args.len bytes.  An id of another form
 * than ours is the key of zeros, which nobody has.
 */
const char *nango_query_parse(nango_query_t *q, nango_str_t args,
    unsigned char *buf);


#endif /* _NANGO_QUERY_H_INCLUDED_ */
