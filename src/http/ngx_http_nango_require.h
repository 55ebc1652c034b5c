/*
 * Copyright (C) nginx-nango authors
 *
 * What nango_require has found for a request, for its variables.
 */

#ifndef _NGX_HTTP_NANGO_REQUIRE_H_INCLUDED_
#define _NGX_HTTP_NANGO_REQUIRE_H_INCLUDED_


#include "ngx_http_nango.h"
#include "ngx_http_nango_look.h"
#include "ngx_nango_credential.h"


struct ngx_http_nango_require_s {
    ngx_nango_environment_t   *environment;
    ngx_str_t                  environment_name;
    ngx_http_complex_value_t   integration;
    ngx_http_complex_value_t  *id;          /* NULL: by integration */

    unsigned                   refuse:1;    /* where there are several */
    unsigned                   optional:1;
    unsigned                   credentials:1;
    unsigned                   proxy:1;

    ngx_str_t                  file;
    ngx_uint_t                 line;
};


typedef enum {
    NGX_HTTP_NANGO_LOOKING = 0,
    NGX_HTTP_NANGO_FETCHING,
    NGX_HTTP_NANGO_ANSWERED,
    NGX_HTTP_NANGO_PASSED
} ngx_http_nango_required_e;


/* Strings are in the request's pool; absent ones have NULL data. */
typedef struct {
    ngx_http_nango_required_e  state;
    ngx_http_nango_look_t      look;
    ngx_array_t                owners;      /* nango_tag_t */
    nango_str_t                integration;
    u_char                     id[NANGO_KEY_LEN];

    /* The connection. */
    u_char                     key[NANGO_KEY_LEN];
    nango_str_t                connection_id;
    nango_str_t                provider;
    nango_status_e             status;      /* NONE: there is none */
    uint64_t                   version;

    ngx_nango_credential_t    *credential;  /* NULL: not asked for */
    ngx_uint_t                 looks;       /* since it has changed */

    unsigned                   by_id:1;
    unsigned                   resume:1;    /* it went on by an event */
    unsigned                   waited:1;    /* for credential, since its look */
} ngx_http_nango_required_t;


/*
 * Whether a header says to Nango what this is: it takes bytes beyond ASCII for
 * others, and what is at the ends for nothing.  Both would be the name of
 * something else.
 */
ngx_uint_t ngx_http_nango_proxy_says(nango_str_t id);

/*
 * Readies the request for Nango's proxy: NGX_OK, NGX_ERROR.  What is in it of
 * the client's that would decide whose credentials are used, or where they are
 * sent, is dropped.
 */
ngx_int_t ngx_http_nango_proxy(ngx_http_request_t *r,
    ngx_nango_environment_t *env, nango_str_t integration,
    nango_str_t connection_id);


#endif /* _NGX_HTTP_NANGO_REQUIRE_H_INCLUDED_ */
