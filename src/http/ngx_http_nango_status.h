/*
 * Copyright (C) nginx-nango authors
 *
 * What nango_status tells: gathered once, then written as JSON, as a page or
 * for Prometheus.  Each number is one line in a table of facts, which has its
 * names in all three.
 */

#ifndef _NGX_HTTP_NANGO_STATUS_H_INCLUDED_
#define _NGX_HTTP_NANGO_STATUS_H_INCLUDED_


#include "ngx_http_nango.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_store.h"

#include "nango_delivery.h"


typedef struct {
    ngx_str_t                   name;
    u_char                      key[NANGO_KEY_LEN];
    uint64_t                    configured;
    uint64_t                    stored;
    uint64_t                    pruned;
    uint64_t                    account_blocked;    /* seconds left */
    uint64_t                    account_low;
    uint64_t                    circuit_open;
    uint64_t                    reconcile;          /* seconds; 0: never */
    uint64_t                    reconciled_at;
} ngx_http_nango_status_env_t;


typedef struct {
    ngx_str_t                   environment;
    ngx_str_t                   name;
    u_char                      key[NANGO_KEY_LEN];
    uint64_t                    configured;
    uint64_t                    known;          /* it has a ledger */
    uint64_t                    parked;
    uint64_t                    down;
    nango_ledger_t              ledger;         /* its strings are gone */
    ngx_nango_delivery_state_t  live;
} ngx_http_nango_status_sub_t;


typedef struct {
    ngx_nango_generation_t      generation;
    uint64_t                    counters[NGX_NANGO_COUNTERS];
    uint64_t                    received;       /* webhooks */
    uint64_t                    refused;

    uint64_t                    store;          /* there is to be one */
    uint64_t                    open;           /* and it can be read */
    uint64_t                    troubled;
    nango_error_t               trouble;

    /* If it is open. */
    u_char                      log[NANGO_STORE_ID_LEN];
    uint64_t                    last;
    uint64_t                    lag;
    nango_usage_t               usage;
    nango_counts_t              counts;

    ngx_array_t                 environments;   /* of the above */
    ngx_array_t                 subscribers;

    ngx_uint_t                  manage;
} ngx_http_nango_status_t;


typedef enum {
    NGX_HTTP_NANGO_FACT_COUNT = 0,
    NGX_HTTP_NANGO_FACT_FLAG,
    NGX_HTTP_NANGO_FACT_TIME        /* ms since 1970, 0: never */
} ngx_http_nango_fact_e;


/*
 * One number, a uint64_t at that offset.  A section is an object in JSON and a
 * table in the page; facts of one section and of one metric stand together.
 */
typedef struct {
    const char                 *section;
    const char                 *name;
    ngx_http_nango_fact_e       kind;
    size_t                      offset;
    ngx_uint_t                  store;      /* told if the store is open */
    const char                 *metric;     /* NULL: not for Prometheus */
    const char                 *label;      /* NULL: none */
    const char                 *type;
    const char                 *help;
} ngx_http_nango_fact_t;


/* They end with one without a name. */
extern const ngx_http_nango_fact_t  ngx_http_nango_facts[];
extern const ngx_http_nango_fact_t  ngx_http_nango_env_facts[];
extern const ngx_http_nango_fact_t  ngx_http_nango_sub_facts[];


static ngx_inline uint64_t
ngx_http_nango_fact(const ngx_http_nango_fact_t *fact, void *base)
{
    return *(uint64_t *) ((u_char *) base + fact->offset);
}


/* Static words. */
const char *ngx_http_nango_trouble_word(nango_rc_e code);
const char *ngx_http_nango_delivery_word(ngx_nango_delivery_error_e error);


/* The text is in the request's pool.  NGX_OK, NGX_ERROR. */
ngx_int_t ngx_http_nango_status_json(ngx_http_request_t *r,
    ngx_http_nango_status_t *st, ngx_str_t *text);
ngx_int_t ngx_http_nango_status_prometheus(ngx_http_request_t *r,
    ngx_http_nango_status_t *st, ngx_str_t *text);
ngx_int_t ngx_http_nango_status_html(ngx_http_request_t *r,
    ngx_http_nango_status_t *st, ngx_str_t *text);


/* With manage: events that are owed, and acts.  As content handlers. */
ngx_int_t ngx_http_nango_status_owed(ngx_http_request_t *r, ngx_uint_t dead);
ngx_int_t ngx_http_nango_status_act(ngx_http_request_t *r);

/*
 * The key of a subscriber that is named in a request: NGX_OK, NGX_ERROR.  An
 * absent environment is the only one there is, or no name at all.
 */
ngx_int_t ngx_http_nango_status_key(ngx_http_request_t *r,
    nango_str_t environment, nango_str_t name, u_char *key);
ngx_int_t ngx_http_nango_status_unknown(ngx_http_request_t *r);


#endif /* _NGX_HTTP_NANGO_STATUS_H_INCLUDED_ */
