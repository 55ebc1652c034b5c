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
    NGX_HTTP_NANGO_CONNECTION_PROVIDER,
    NGX_HTTP_NANGO_CREDENTIAL,
    NGX_HTTP_NANGO_AUTHORIZATION
} ngx_http_nango_variable_e;


static ngx_int_t ngx_http_nango_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_nango_connection_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_nango_credential_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_nango_credential_field_variable(
    ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_nango_config_field_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_http_nango_required_t *ngx_http_nango_required(
    ngx_http_request_t *r);
static ngx_uint_t ngx_http_nango_cloned(ngx_http_request_t *r);
static nango_str_t ngx_http_nango_credentials(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_variable_set(ngx_http_variable_value_t *v,
    nango_str_t s);


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

    { ngx_string("nango_credential"), NULL,
      ngx_http_nango_credential_variable,
      NGX_HTTP_NANGO_CREDENTIAL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("nango_authorization"), NULL,
      ngx_http_nango_credential_variable,
      NGX_HTTP_NANGO_AUTHORIZATION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    /* nginx calls these with the whole name as data. */

    { ngx_string("nango_credential_"), NULL,
      ngx_http_nango_credential_field_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX, 0 },

    { ngx_string("nango_config_"), NULL,
      ngx_http_nango_config_field_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX, 0 },

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
    ngx_http_nango_required_t  *rd;

    rd = ngx_http_nango_required(r);

    if (rd == NULL) {
        return ngx_http_nango_variable_set(v, nango_str("", 0));
    }

    switch (data) {

    case NGX_HTTP_NANGO_CONNECTION_ID:
        return ngx_http_nango_variable_set(v, rd->connection_id);

    case NGX_HTTP_NANGO_CONNECTION_PROVIDER:
        return ngx_http_nango_variable_set(v, rd->provider);

    default: /* NGX_HTTP_NANGO_CONNECTION_STATUS */
        return ngx_http_nango_variable_set(v,
                                           rd->status == NANGO_STATUS_VALID
                                           ? nango_str("valid", 5)
                                           : nango_str("invalid", 7));
    }
}


static ngx_int_t
ngx_http_nango_credential_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    size_t       len;
    u_char      *p;
    nango_str_t  packed;

    packed = ngx_http_nango_credentials(r);

    if (data == NGX_HTTP_NANGO_CREDENTIAL) {
        return ngx_http_nango_variable_set(v, nango_credential_secret(packed));
    }

    len = nango_credential_authorization(packed, NULL);

    p = ngx_pnalloc(r->pool, len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    len = nango_credential_authorization(packed, p);

    return ngx_http_nango_variable_set(v, nango_str(p, len));
}


static ngx_int_t
ngx_http_nango_credential_field_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t *name = (ngx_str_t *) data;

    size_t  prefix;

    prefix = sizeof("nango_credential_") - 1;

    return ngx_http_nango_variable_set(v,
               nango_credential_field(ngx_http_nango_credentials(r),
                                      nango_str(name->data + prefix,
                                                name->len - prefix)));
}


static ngx_int_t
ngx_http_nango_config_field_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t *name = (ngx_str_t *) data;

    size_t  prefix;

    prefix = sizeof("nango_config_") - 1;

    return ngx_http_nango_variable_set(v,
               nango_config_field(ngx_http_nango_credentials(r),
                                  nango_str(name->data + prefix,
                                            name->len - prefix)));
}


/* NULL: none, or not yet. */

static ngx_http_nango_required_t *
ngx_http_nango_required(ngx_http_request_t *r)
{
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_required_t  *rd;

    for ( ;; ) {
        ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
        rd = ctx ? ctx->required : NULL;

        if (rd || !ngx_http_nango_cloned(r)) {
            break;
        }

        r = r->parent;
    }

    if (rd == NULL || rd->state != NGX_HTTP_NANGO_PASSED
        || rd->status == NANGO_STATUS_NONE)
    {
        return NULL;
    }

    return rd;
}


/*
 * The further slices of an answer, and a cache's update in the background, are
 * copies of their request that begin where it is: in the content phase, with no
 * context.  Empty there, $nango_connection_id would make one entry of a cache
 * for all who ask.  Other subrequests are not in that phase without having
 * passed nango_require themselves.
 */

static ngx_uint_t
ngx_http_nango_cloned(ngx_http_request_t *r)
{
    ngx_http_phase_handler_t   *ph;
    ngx_http_core_main_conf_t  *cmcf;
    ngx_http_nango_loc_conf_t  *nlcf, *above;

    if (r == r->main) {
        return 0;
    }

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    above = ngx_http_get_module_loc_conf(r->parent, ngx_http_nango_module);

    if (nlcf->require == NULL || nlcf->require != above->require) {
        return 0;
    }

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    ph = cmcf->phase_engine.handlers;

    return ph[r->phase_handler].checker == ngx_http_core_content_phase;
}


static nango_str_t
ngx_http_nango_credentials(ngx_http_request_t *r)
{
    ngx_http_nango_required_t  *rd;

    rd = ngx_http_nango_required(r);

    if (rd == NULL || rd->credential == NULL) {
        return nango_str("", 0);
    }

    return nango_str(rd->credential->data, rd->credential->len);
}


static ngx_int_t
ngx_http_nango_variable_set(ngx_http_variable_value_t *v, nango_str_t s)
{
    v->data = (u_char *) (s.data ? s.data : (const u_char *) "");
    v->len = s.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
