/*
 * Copyright (C) nginx-nango authors
 *
 * Requests to Nango's API, and to subscribers, from a worker's event loop:
 * libcurl's multi handle on nginx's own events and timers.  README.md says why
 * libcurl.
 *
 * Everything here is called on the worker's event loop, and handlers are too.
 */

#ifndef _NGX_NANGO_CURL_H_INCLUDED_
#define _NGX_NANGO_CURL_H_INCLUDED_


#include "ngx_nango.h"
#include "ngx_nango_shared.h"


/* What is read of a reply; more is an error, not memory. */
#define NGX_NANGO_REPLY_MAX      (1024 * 1024)

/* How many may wait for one of an environment's api_connections. */
#define NGX_NANGO_TRANSFERS_MAX  1024


typedef enum {
    NGX_NANGO_TRANSFER_DONE = 0,        /* there is a whole reply */
    NGX_NANGO_TRANSFER_UNAVAILABLE,     /* not reachable, cut, no TLS */
    NGX_NANGO_TRANSFER_TIMEOUT,
    NGX_NANGO_TRANSFER_MALFORMED        /* no HTTP, or too large */
} ngx_nango_outcome_e;


struct curl_slist;

typedef struct ngx_nango_transfer_s  ngx_nango_transfer_t;

typedef void (*ngx_nango_transfer_pt)(ngx_nango_transfer_t *t);

/* What read() returns besides a number of bytes, of which 0 is the end. */
#define NGX_NANGO_READ_LATER     ((size_t) -1)  /* _transfer_resume() follows */
#define NGX_NANGO_READ_FAILED    ((size_t) -2)

struct ngx_nango_transfer_s {
    /* Set by the caller before the start: one of these, */
    ngx_nango_environment_t  *environment;
    ngx_nango_subscriber_t   *subscriber;

    /* what is asked of Nango, */
    const char               *method;       /* static */
    const char               *path;         /* with a leading slash; static */
    char                     *path_memory;  /* or malloc()ed, now ours */

    /* or what a subscriber gets, in a POST: "Name: value" each, now ours, */
    struct curl_slist        *lines;

    /* and the body, in memory or read as libcurl wants it. */
    char                     *body;         /* malloc()ed, now ours; or NULL */
    const void               *lent;         /* or somebody else's */
    size_t                  (*read)(ngx_nango_transfer_t *t, u_char *buf,
                                    size_t size);
    uint64_t                  body_len;

    ngx_nango_transfer_pt     handler;
    void                     *data;

    /* Freed with the transfer, also where it is abandoned; or NULL. */
    void                     *memory;
    void                    (*memory_free)(void *memory);

    /* For the handler. */
    ngx_nango_outcome_e       outcome;
    ngx_uint_t                status;
    ngx_str_t                 reply;
    time_t                    retry_after;  /* -1: not said */
    ngx_uint_t                json;         /* of type application/json */
    ngx_uint_t                unreached;    /* nobody is there */
    ngx_uint_t                ours;         /* our own trouble, not theirs */
    ngx_nango_delivery_error_e  failure;    /* of one without an answer */
    ngx_msec_t                time;
    const char               *error;        /* static; NULL: never sent */

    /* Private. */
    void                     *easy;
    size_t                    size;
    ngx_msec_t                start;
    ngx_queue_t               queue;
    size_t                    header_size;
    ngx_uint_t                headers;      /* all of them have come */
    const char               *refused;      /* what is wrong with the reply */
    unsigned                  active:1;
    unsigned                  starved:1;
    unsigned                  moved:1;      /* its connection was closed */
    unsigned                  lost:1;       /* sent, and not to be repeated */
    unsigned                  paused:1;
};


ngx_int_t ngx_nango_curl_init(ngx_cycle_t *cycle,
    ngx_nango_environment_t **environments, ngx_uint_t n,
    ngx_nango_subscriber_t **subscribers, ngx_uint_t m);

/* Ends all transfers without calling their handlers. */
void ngx_nango_curl_exit(void);


/*
 * A zeroed transfer, NULL if there is no memory.  The one who created it owns
 * it until a successful start; from then on it ends itself, after handler, and
 * the caller may at most abandon it.
 */
ngx_nango_transfer_t *ngx_nango_transfer_create(void);
void ngx_nango_transfer_free(ngx_nango_transfer_t *t);

/*
 * NGX_OK: handler will be called, later and once.  NGX_BUSY: too many wait
 * already.  NGX_DECLINED: Nango did not answer lately, and is not asked now.
 * NGX_ERROR: no memory.  To a subscriber all are sent that are started; what
 * it answers beyond status and Retry-After is dropped, and what was sent on a
 * kept connection that breaks is sent again: it gets events at least once.
 */
ngx_int_t ngx_nango_transfer_start(ngx_nango_transfer_t *t);

/*
 * The one who waited has left: the handler will not be called.  The transfer
 * itself goes on, since taking it out of libcurl can wait for DNS.
 */
void ngx_nango_transfer_abandon(ngx_nango_transfer_t *t);

/* After NGX_NANGO_READ_LATER: read() is called again. */
void ngx_nango_transfer_resume(ngx_nango_transfer_t *t);


#endif /* _NGX_NANGO_CURL_H_INCLUDED_ */
