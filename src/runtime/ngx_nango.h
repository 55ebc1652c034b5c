/*
 * Copyright (C) nginx-nango authors
 *
 * What the runtime knows of the configuration: plain structures, filled while
 * the configuration is read and never written afterwards.
 */

#ifndef _NGX_NANGO_H_INCLUDED_
#define _NGX_NANGO_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "nango_api.h"
#include "nango_hash.h"
#include "nango_signature.h"


#define NGX_NANGO_VERSION       "0.1.0"

#define NGX_NANGO_CLOUD_API     "https://api.nango.dev"
#define NGX_NANGO_CLOUD_UI      "https://connect.nango.dev"


/* One Nango environment. */
typedef struct {
    ngx_str_t                 name;
    u_char                    key[NANGO_KEY_LEN];
    ngx_uint_t                index;

    /* URLs have no slash at the end. */
    ngx_str_t                 api;
    ngx_str_t                 api_public;
    ngx_str_t                 connect_ui;

    /* "Authorization: Bearer KEY", terminated by zero; empty: no api_key. */
    ngx_str_t                 authorization;
    nango_keys_t             *signing_keys;

    ngx_msec_t                api_timeout;
    ngx_msec_t                api_connect_timeout;
    ngx_int_t                 api_connections;
    ngx_str_t                 api_trusted_certificate;
    ngx_flag_t                api_verify;
    ngx_str_t                 account;

    ngx_uint_t                session_format;
    ngx_msec_t                reconcile;
    ngx_msec_t                dedupe;

    /* Where it was defined, for messages. */
    ngx_str_t                 file;
    ngx_uint_t                line;
} ngx_nango_environment_t;


/* "deliver" in an environment. */
typedef struct {
    ngx_str_t                 name;
    u_char                    key[NANGO_KEY_LEN];
    ngx_uint_t                index;        /* among all subscribers */
    ngx_nango_environment_t  *environment;

    ngx_str_t                 url;          /* both terminated by zero */
    ngx_str_t                 socket;       /* a unix one's path, or empty */
    ngx_str_t                 trusted_certificate;
    ngx_flag_t                verify;

    /* "Name: value" each, terminated by zero; secrets. */
    ngx_array_t              *headers;      /* ngx_str_t; NULL: none */

    ngx_uint_t                types;        /* NANGO_DELIVERY_TYPE; 0: all */
    ngx_flag_t                repairs;
    ngx_flag_t                from_start;
    ngx_msec_t                timeout;
    ngx_msec_t                connect_timeout;
    ngx_uint_t                concurrency;
    uint64_t                  max_age;      /* ms */

    ngx_str_t                 file;
    ngx_uint_t                line;
} ngx_nango_subscriber_t;


typedef struct {
    ngx_str_t                 path;         /* terminated by zero */
    uint64_t                  size;
    time_t                    retain;
} ngx_nango_store_conf_t;


static ngx_inline nango_str_t
ngx_nango_str(const ngx_str_t *s)
{
    nango_str_t  n;

    n.len = s->len;
    n.data = s->data;

    return n;
}


/* Wall clock in ms, on any thread; nginx's cached one is the loop's alone. */
uint64_t ngx_nango_now(void);

/* Monotonic, in us, on any thread. */
uint64_t ngx_nango_ticks(void);


#endif /* _NGX_NANGO_H_INCLUDED_ */
