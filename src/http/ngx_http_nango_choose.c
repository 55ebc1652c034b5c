/*
 * Copyright (C) nginx-nango authors
 *
 * The one connection that a request is about: by its id, or by its integration
 * where the caller has only one there.
 */

#include "ngx_http_nango_json.h"
#include "ngx_http_nango_look.h"


/* More than these are not listed as choices. */
#define NGX_HTTP_NANGO_CHOICES  100


static ngx_int_t ngx_http_nango_choices(ngx_http_request_t *r,
    ngx_array_t *owners, nango_connection_t *c, ngx_uint_t n,
    ngx_str_t *choices);


ngx_int_t
ngx_http_nango_choose(ngx_http_request_t *r, nango_reader_t *reader,
    ngx_array_t *owners, u_char *key, nango_str_t integration,
    nango_connection_t *c, ngx_str_t *choices)
{
    ngx_int_t                   rc;
    ngx_uint_t                  n;
    nango_connection_t         *all;
    ngx_nango_environment_t    *env;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    env = nlcf->endpoint.environment;

    if (key) {
        rc = ngx_http_nango_find(r, reader, env, owners, key, c);

        if (rc == NGX_OK && integration.data
            && !nango_str_eq(c->integration, integration))
        {
            return NGX_DECLINED;
        }

        return rc;
    }

    rc = ngx_http_nango_find_all(r, reader, env, owners, integration, c, 1,
                                 &n);

    if (rc != NGX_OK || n == 1) {
        return rc;
    }

    if (n == 0) {
        return NGX_DECLINED;
    }

    all = ngx_palloc(r->pool, NGX_HTTP_NANGO_CHOICES
                              * sizeof(nango_connection_t));
    if (all == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_nango_find_all(r, reader, env, owners, integration, all,
                                 NGX_HTTP_NANGO_CHOICES, &n);

    if (rc == NGX_OK) {
        n = ngx_min(n, NGX_HTTP_NANGO_CHOICES);
        rc = ngx_http_nango_choices(r, owners, all, n, choices);
    }

    ngx_pfree(r->pool, all);

    return (rc == NGX_OK) ? NGX_ABORT : rc;
}


static ngx_int_t
ngx_http_nango_choices(ngx_http_request_t *r, ngx_array_t *owners,
    nango_connection_t *c, ngx_uint_t n, ngx_str_t *choices)
{
    json_t      *list;
    ngx_int_t    rc;
    ngx_uint_t   i;

    list = json_array();

    for (i = 0; i < n; i++) {
        if (json_array_append_new(list,
                             ngx_http_nango_connection_json(r, owners, &c[i]))
            != 0)
        {
            json_decref(list);
            return NGX_ERROR;
        }
    }

    list = json_pack("{s:{s:s, s:s}, s:o}",
                     "error",
                     "code", "connection_ambiguous",
                     "message", "There are several; choose one by its id",
                     "choices", list);

    rc = ngx_http_nango_json_text(r, list, choices);

    json_decref(list);

    return rc;
}


ngx_int_t
ngx_http_nango_not_chosen(ngx_http_request_t *r, ngx_int_t rc,
    ngx_str_t *choices)
{
    switch (rc) {

    case NGX_DECLINED:
        return ngx_http_nango_error(r, NGX_HTTP_NOT_FOUND,
                                    "connection_not_found",
                                    "There is no such connection");

    case NGX_ABORT:
        return ngx_http_nango_error_body(r, NGX_HTTP_CONFLICT,
                                         "connection_ambiguous", choices);

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }
}


ngx_int_t
ngx_http_nango_copy(ngx_pool_t *pool, nango_str_t *s)
{
    u_char  *p;

    p = ngx_pnalloc(pool, s->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (s->len) {
        ngx_memcpy(p, s->data, s->len);
    }

    s->data = p;

    return NGX_OK;
}
