/*
 * Copyright (C) nginx-nango authors
 *
 * The query of a request for connections, or for events.
 */

#ifndef _NANGO_QUERY_H_INCLUDED_
#define _NANGO_QUERY_H_INCLUDED_


#include "nango_hash.h"
#include "nango_str.h"


#define NANGO_QUERY_LIMIT      100
#define NANGO_QUERY_LIMIT_MAX  1000
#define NANGO_QUERY_WAIT_MAX   55


typedef struct {
    int                   one;          /* id= */
    unsigned char         key[NANGO_KEY_LEN];
    nango_str_t           integration;  /* absent: any */
    uint64_t              limit;
    uint64_t              before;       /* cursor=; 0: from the newest on */
    int                   has_since;
    uint64_t              since;
    uint64_t              wait;         /* seconds; 0: do not */
} nango_query_t;


/*
 * Reads what follows the question mark: "id", "integration" (aliases
 * "integration_id", "provider_config_key"), "limit", "cursor", "since" and
 * "wait"; others are passed over.  Names are compared as nginx compares those
 * of $arg_name: as they stand there, in either case, and the first one counts.
 * In values "+" is a blank and %XX a byte; a "%" that is none is itself.
 *
 * NULL, or what is wrong: a sentence for the client, static.  integration
 * points into buf, which has room for args.len bytes.  An id of another form
 * than ours is the key of zeros, which nobody has.
 */
const char *nango_query_parse(nango_query_t *q, nango_str_t args,
    unsigned char *buf);


/* The length of a log's id, which is hex in a query. */
#define NANGO_QUERY_LOG_LEN    16

typedef struct {
    int                   has_after;
    uint64_t              after;
    int                   has_log;
    unsigned char         log[NANGO_QUERY_LOG_LEN];
    uint64_t              limit;
    uint64_t              wait;         /* seconds; 0: do not */
    nango_str_t           type;         /* absent: any */
    int                   has_body;
    uint64_t              body;         /* a sequence */
} nango_events_query_t;

/*
 * The same for events: "after", "log", "limit", "wait", "type" and "body".  A
 * log's id of another form than ours is that of zeros.  type points into buf.
 */
const char *nango_events_query_parse(nango_events_query_t *q, nango_str_t args,
    unsigned char *buf);

/*
 * What a client of an event stream has seen last, LOG:SEQUENCE or SEQUENCE, as
 * its header "Last-Event-ID" says: overrides "after", and "log" if it names
 * one.  Nothing at all says nothing.
 */
const char *nango_events_query_last(nango_events_query_t *q, nango_str_t id);


#endif /* _NANGO_QUERY_H_INCLUDED_ */
