/*
 * Copyright (C) nginx-nango authors
 *
 * nango_reconnect [environment];
 *
 * A session to authorise an existing connection again: the caller's own, or
 * nothing is asked of Nango.  The stored tags go along, since Nango wipes the
 * tags of a connection that is reconnected without them.
 */

#include "ngx_http_nango.h"
#include "ngx_http_nango_look.h"


typedef struct {
    ngx_http_nango_look_t   look;
    ngx_array_t             owners;         /* nango_tag_t */
    ngx_array_t             tags;           /* the same, and more of them */
    nango_target_t          target;

    /* Copies of what was found. */
    nango_session_t         session;
    ngx_str_t               choices;
} ngx_http_nango_reconnect_t;


static ngx_int_t ngx_http_nango_reconnect_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_reconnect_request(ngx_http_request_t *r,
    nango_str_t body);
static ngx_int_t ngx_http_nango_reconnect_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static ngx_int_t ngx_http_nango_reconnect_tags(ngx_http_request_t *r,
    ngx_http_nango_reconnect_t *rec, nango_connection_t *c);
static ngx_int_t ngx_http_nango_reconnect_then(ngx_http_request_t *r,
    ngx_int_t rc, void *data);


char *
ngx_http_nango_reconnect(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char       *rv;
    ngx_str_t  *value;

    value = cf->args->elts;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_reconnect_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (cf->args->nelts == 2) {
        nlcf->endpoint.environment_name = value[1];
    }

    ngx_str_set(&nlcf->endpoint.methods, "POST");

    nlcf->endpoint.browser = 1;
    nlcf->endpoint.api = 1;
    nlcf->endpoint.store = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_nango_reconnect_handler(ngx_http_request_t *r)
{
    ngx_int_t                    rc;
    ngx_http_nango_ctx_t        *ctx;
    ngx_http_nango_reconnect_t  *rec;

    if (r->method != NGX_HTTP_POST) {
        return ngx_http_nango_not_allowed(r);
    }

    ctx = ngx_http_nango_ctx(r);
    rec = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_reconnect_t));

    if (ctx == NULL || rec == NULL
        || ngx_array_init(&rec->owners, r->pool, NANGO_TAGS_MAX,
                          sizeof(nango_tag_t))
           != NGX_OK
        || ngx_array_init(&rec->tags, r->pool, NANGO_TAGS_MAX,
                          sizeof(nango_tag_t))
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->state = rec;

    if (ngx_http_nango_owners(r, &rec->owners, &rc) != NGX_OK
        || ngx_http_nango_permitted(r, NGX_HTTP_NANGO_RECONNECT, &rc)
           != NGX_OK)
    {
        return rc;
    }

    return ngx_http_nango_read(r, ngx_http_nango_reconnect_request);
}


static ngx_int_t
ngx_http_nango_reconnect_request(ngx_http_request_t *r, nango_str_t body)
{
    u_char                      *buf;
    const char                  *error;
    nango_tag_t                 *tag;
    ngx_http_nango_ctx_t        *ctx;
    ngx_http_nango_reconnect_t  *rec;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    rec = ctx->state;

    buf = ngx_pnalloc(r->pool, body.len + 1);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    if (nango_target_parse(&rec->target, body,
                           NANGO_TARGET_ID|NANGO_TARGET_INTEGRATION, buf,
                           &error)
        != 0)
    {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    error);
    }

    /*
     * The owners first, then what the configuration adds; what is stored comes
     * last, and does not take the place of either.
     */

    tag = ngx_array_push_n(&rec->tags, rec->owners.nelts);

    if (tag == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(tag, rec->owners.elts,
               rec->owners.nelts * sizeof(nango_tag_t));

    if (ngx_http_nango_tags(r, &rec->tags) != NGX_OK) {
        return NGX_ERROR;
    }

    rec->look.look = ngx_http_nango_reconnect_look;
    rec->look.then = ngx_http_nango_reconnect_then;
    rec->look.data = rec;

    return ngx_http_nango_look(r, &rec->look);
}


static ngx_int_t
ngx_http_nango_reconnect_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_reconnect_t *rec = data;

    u_char              *key;
    ngx_int_t            rc;
    nango_connection_t   c;

    key = (rec->target.by == NANGO_TARGET_ID) ? rec->target.id : NULL;

    rc = ngx_http_nango_choose(r, reader, &rec->owners, key,
                               rec->target.integration, &c, &rec->choices);

    return (rc == NGX_OK) ? ngx_http_nango_reconnect_tags(r, rec, &c) : rc;
}


static ngx_int_t
ngx_http_nango_reconnect_tags(ngx_http_request_t *r,
    ngx_http_nango_reconnect_t *rec, nango_connection_t *c)
{
    size_t            i;
    ngx_uint_t        n;
    nango_tag_t      *tag, stored;
    nango_session_t  *session;

    session = &rec->session;

    session->connection_id = c->connection_id;
    session->integration_id = c->integration;

    if (ngx_http_nango_copy(r->pool, &session->connection_id) != NGX_OK
        || ngx_http_nango_copy(r->pool, &session->integration_id) != NGX_OK)
    {
        return NGX_ERROR;
    }

    tag = rec->tags.elts;

    for (i = 0; i < c->ntags; i++) {
        stored = c->tags[i];

        for (n = 0; n < rec->tags.nelts; n++) {
            if (nango_str_eq(tag[n].name, stored.name)) {
                break;
            }
        }

        if (n < rec->tags.nelts) {
            continue;
        }

        if (n == NANGO_TAGS_MAX
            || nango_tag_name_error(stored.name) != NULL
            || nango_tag_value_error(stored.name, stored.value) != NULL)
        {
            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "a stored tag of a connection is left out of its "
                          "reconnection: Nango would not take it");
            continue;
        }

        if (ngx_http_nango_copy(r->pool, &stored.name) != NGX_OK
            || ngx_http_nango_copy(r->pool, &stored.value) != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* There is room for NANGO_TAGS_MAX of them. */

        tag[n] = stored;
        rec->tags.nelts++;
    }

    session->tags = rec->tags.elts;
    session->ntags = rec->tags.nelts;

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_reconnect_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_reconnect_t *rec = data;

    if (rc != NGX_OK) {
        return ngx_http_nango_not_chosen(r, rc, &rec->choices);
    }

    return ngx_http_nango_issue(r, &rec->session, rec->owners.nelts);
}
