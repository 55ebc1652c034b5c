/*
 * Copyright (C) nginx-nango authors
 *
 * Variables for the access log: what came of a request, and what it waited
 * for; and what nango_require has found.  None of those for the log holds a
 * secret, a token or anything of a body but its type.
 */

#include "ngx_http_nango.h"
#include "ngx_http_nango_require.h"


typedef enum {
    NGX_HTTP_NANGO_RESULT = 0,
    NGX_HTTP_NANGO_EVENT_TYPE,
    NGX_HTTP_NANGO_EVENT_OPERATION,
    NGX_HTTP_NANGO_EVENT_SEQUENCE,
    NGX_HTTP_NANGO_API_STATUS,
    NGX_HTTP_NANGO_API_TIME,
    NGX_HTTP_NANGO_COMMIT_TIME,
    NGX_HTTP_NANGO_CONNECTION_ID,
    NGX_HTTP_NANGO_CONNECTION_STATUS,
    NGX_HTTP_NANGO_CONNECTION_PROVIDER
} ngx_http_nango_variable_e;


static ngx_int_t ngx_http_nango_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_nango_connection_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_nango_vars[] = {

    { ngx_string("nango_result"), NULL, ngx_http_nango_variable,
      NGX_HTTP_NANGO_RESULT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_event_type"), NULL, ngx_http_nango_variable,
      NGX_HTTP_NANGO_EVENT_TYPE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_event_operation"), NULL, ngx_http_nango_variable,
      NGX_HTTP_NANGO_EVENT_OPERATION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_event_sequence"), NULL, ngx_http_nango_variable,
      NGX_HTTP_NANGO_EVENT_SEQUENCE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_api_status"), NULL, ngx_http_nango_variable,
      NGX_HTTP_NANGO_API_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_api_time"), NULL, ngx_http_nango_variable,
      NGX_HTTP_NANGO_API_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_commit_time"), NULL, ngx_http_nango_variable,
      NGX_HTTP_NANGO_COMMIT_TIME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_connection_id"), NULL,
      ngx_http_nango_connection_variable,
      NGX_HTTP_NANGO_CONNECTION_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_connection_status"), NULL,
      ngx_http_nango_connection_variable,
      NGX_HTTP_NANGO_CONNECTION_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_connection_provider"), NULL,
      ngx_http_nango_connection_variable,
      NGX_HTTP_NANGO_CONNECTION_PROVIDER, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_nango_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_nango_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char                *p;
    ngx_str_t              s;
    ngx_http_nango_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN + sizeof(".000000"));
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_str_null(&s);

    switch (data) {

    case NGX_HTTP_NANGO_RESULT:
        s = ctx->result;
        break;

    case NGX_HTTP_NANGO_EVENT_TYPE:
        if (ctx->event) {
            s.data = (u_char *) nango_type_name(ctx->type);
            s.len = ngx_strlen(s.data);
        }

        break;

    case NGX_HTTP_NANGO_EVENT_OPERATION:
        if (ctx->event) {
            s.data = (u_char *) nango_op_name(ctx->operation);
            s.len = ngx_strlen(s.data);
        }

        break;

    case NGX_HTTP_NANGO_EVENT_SEQUENCE:
        if (ctx->sequence) {
            s.data = p;
            s.len = ngx_sprintf(p, "%uL", ctx->sequence) - p;
        }

        break;

    case NGX_HTTP_NANGO_API_STATUS:
        if (ctx->api) {
            s.data = p;
            s.len = ngx_sprintf(p, "%ui", ctx->api_status) - p;
        }

        break;

    case NGX_HTTP_NANGO_API_TIME:
        if (ctx->api) {
            s.data = p;
            s.len = ngx_sprintf(p, "%T.%03M", (time_t) ctx->api_time / 1000,
                                ctx->api_time % 1000)
                    - p;
        }

        break;

    default: /* NGX_HTTP_NANGO_COMMIT_TIME */
        if (ctx->commit) {
            s.data = p;
            s.len = ngx_sprintf(p, "%uL.%06uL", ctx->commit_time / 1000000,
                                ctx->commit_time % 1000000)
                    - p;
        }

        break;
    }

    if (s.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = s.data;
    v->len = s.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/* Empty until nango_require has found a connection. */

static ngx_int_t
ngx_http_nango_connection_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    nango_str_t                 s;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_required_t  *rd;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    rd = ctx ? ctx->required : NULL;

    s = nango_str("", 0);

    if (rd && rd->state == NGX_HTTP_NANGO_PASSED
        && rd->status != NANGO_STATUS_NONE)
    {
        switch (data) {

        case NGX_HTTP_NANGO_CONNECTION_ID:
            s = rd->connection_id;
            break;

        case NGX_HTTP_NANGO_CONNECTION_PROVIDER:
            s = rd->provider;
            break;

        default: /* NGX_HTTP_NANGO_CONNECTION_STATUS */
            s = (rd->status == NANGO_STATUS_VALID) ? nango_str("valid", 5)
                                                   : nango_str("invalid", 7);
            break;
        }
    }

    v->data = (u_char *) s.data;
    v->len = s.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
