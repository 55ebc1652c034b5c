/*
 * Copyright (C) nginx-nango authors
 *
 * nango_session [environment];
 *
 * Issues a session token through Nango's API.  Whose session it is comes from
 * the configuration's nango_owner alone: nothing in the request can change it.
 */

#include "ngx_http_nango.h"


static ngx_int_t ngx_http_nango_session_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_session_request(ngx_http_request_t *r,
    nango_str_t body);
static ngx_int_t ngx_http_nango_session_integrations(ngx_http_request_t *r,
    nango_session_wish_t *wish, nango_session_t *session);


char *
ngx_http_nango_session(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char       *rv;
    ngx_str_t  *value;

    value = cf->args->elts;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_session_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (cf->args->nelts == 2) {
        nlcf->endpoint.environment_name = value[1];
    }

    ngx_str_set(&nlcf->endpoint.methods, "POST");

    nlcf->endpoint.browser = 1;
    nlcf->endpoint.api = 1;
    nlcf->endpoint.session = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_nango_session_handler(ngx_http_request_t *r)
{
    ngx_int_t              rc;
    ngx_array_t           *tags;
    ngx_http_nango_ctx_t  *ctx;

    if (r->method != NGX_HTTP_POST) {
        return ngx_http_nango_not_allowed(r);
    }

    ctx = ngx_http_nango_ctx(r);
    tags = ngx_array_create(r->pool, NANGO_TAGS_MAX, sizeof(nango_tag_t));

    if (ctx == NULL || tags == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->state = tags;

    if (ngx_http_nango_owners(r, tags, &rc) != NGX_OK
        || ngx_http_nango_permitted(r, NGX_HTTP_NANGO_CONNECT, &rc) != NGX_OK)
    {
        return rc;
    }

    return ngx_http_nango_read(r, ngx_http_nango_session_request);
}


/* NGX_AGAIN: Nango has been asked. */

static ngx_int_t
ngx_http_nango_session_request(ngx_http_request_t *r, nango_str_t body)
{
    int                     wrc;
    ngx_int_t               rc;
    ngx_uint_t              nowners;
    const char             *error;
    ngx_array_t            *tags;
    nango_session_t         session;
    nango_session_wish_t    wish;
    ngx_http_nango_ctx_t   *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    tags = ctx->state;

    wrc = nango_session_wish_parse(&wish, body, &error);

    if (wrc == -2) {
        return NGX_ERROR;
    }

    if (wrc == -1) {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    error);
    }

    ngx_memzero(&session, sizeof(nango_session_t));

    nowners = tags->nelts;

    rc = ngx_http_nango_session_integrations(r, &wish, &session);

    if (rc == NGX_OK) {
        rc = ngx_http_nango_tags(r, tags);
    }

    if (rc == NGX_OK) {
        session.tags = tags->elts;
        session.ntags = tags->nelts;

        rc = ngx_http_nango_issue(r, &session, nowners);

    } else if (rc == NGX_DECLINED) {
        rc = ngx_http_nango_error(r, NGX_HTTP_FORBIDDEN,
                                  "integration_not_allowed",
                                  "This integration is not allowed here");
    }

    nango_session_wish_free(&wish);

    return rc;
}


/*
 * What is asked for, if all of it is allowed, else what is allowed.  NGX_OK,
 * NGX_DECLINED: not allowed, NGX_ERROR.
 */

static ngx_int_t
ngx_http_nango_session_integrations(ngx_http_request_t *r,
    nango_session_wish_t *wish, nango_session_t *session)
{
    ngx_uint_t                  i, n;
    ngx_array_t                 allowed;
    nango_str_t                *id;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    session->integrations = wish->integrations;
    session->nintegrations = wish->nintegrations;

    if (nlcf->integrations == NULL) {
        return NGX_OK;
    }

    if (ngx_array_init(&allowed, r->pool, nlcf->integrations->nelts,
                       sizeof(nango_str_t))
        != NGX_OK
        || ngx_http_nango_integrations(r, &allowed) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (allowed.nelts == 0) {
        return NGX_DECLINED;
    }

    id = allowed.elts;

    if (wish->nintegrations == 0) {
        session->integrations = id;
        session->nintegrations = allowed.nelts;
        return NGX_OK;
    }

    for (n = 0; n < wish->nintegrations; n++) {

        for (i = 0; i < allowed.nelts; i++) {
            if (nango_str_eq(wish->integrations[n], id[i])) {
                break;
            }
        }

        if (i == allowed.nelts) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}
