/*
 * Copyright (C) nginx-nango authors
 *
 * nango_permit action ... [if=$variable];
 *
 * What a caller may do with its connections besides looking at them.  Without
 * the directive everything; with it, what any line of the location allows
 * whose condition holds.
 */

#include "ngx_http_nango.h"


typedef struct {
    ngx_uint_t                 actions;
    ngx_http_complex_value_t  *condition;   /* NULL: always */
} ngx_http_nango_permit_t;


static ngx_conf_enum_t  ngx_http_nango_actions[] = {
    { ngx_string("connect"), NGX_HTTP_NANGO_CONNECT },
    { ngx_string("reconnect"), NGX_HTTP_NANGO_RECONNECT },
    { ngx_string("verify"), NGX_HTTP_NANGO_VERIFY },
    { ngx_string("delete"), NGX_HTTP_NANGO_DELETE },
    { ngx_null_string, 0 }
};


char *
ngx_http_nango_permit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    ngx_str_t                         *value, condition;
    ngx_uint_t                         i, n;
    ngx_http_nango_permit_t           *permit;

    if (nlcf->permits == NGX_CONF_UNSET_PTR) {
        nlcf->permits = ngx_array_create(cf->pool, 2,
                                         sizeof(ngx_http_nango_permit_t));
        if (nlcf->permits == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    permit = ngx_array_push(nlcf->permits);
    if (permit == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(permit, sizeof(ngx_http_nango_permit_t));

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "if=", 3) == 0) {

            /* "if=!$variable" would always hold. */

            if (permit->condition || value[i].len < 5
                || value[i].data[3] != '$')
            {
                goto invalid;
            }

            condition.data = value[i].data + 3;
            condition.len = value[i].len - 3;

            permit->condition = ngx_palloc(cf->pool,
                                           sizeof(ngx_http_complex_value_t));
            if (permit->condition == NULL) {
                return NGX_CONF_ERROR;
            }

            if (ngx_http_nango_compile(cf, &condition, permit->condition)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        for (n = 0; ngx_http_nango_actions[n].name.len; n++) {
            if (ngx_http_nango_actions[n].name.len == value[i].len
                && ngx_strncmp(ngx_http_nango_actions[n].name.data,
                               value[i].data, value[i].len)
                   == 0)
            {
                break;
            }
        }

        if (ngx_http_nango_actions[n].name.len == 0) {
            goto invalid;
        }

        permit->actions |= ngx_http_nango_actions[n].value;
    }

    if (permit->actions == 0) {
        return "needs an action: \"connect\", \"reconnect\", \"verify\" or "
               "\"delete\"";
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"; there are \"connect\", "
                       "\"reconnect\", \"verify\", \"delete\" and one "
                       "\"if=$variable\"", &value[i]);
    return NGX_CONF_ERROR;
}


ngx_int_t
ngx_http_nango_permitted(ngx_http_request_t *r, ngx_uint_t action,
    ngx_int_t *rc)
{
    ngx_str_t                   s;
    ngx_uint_t                  i;
    ngx_http_nango_permit_t    *permit;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (nlcf->permits == NULL) {
        return NGX_OK;
    }

    permit = nlcf->permits->elts;

    for (i = 0; i < nlcf->permits->nelts; i++) {

        if (!(permit[i].actions & action)) {
            continue;
        }

        if (permit[i].condition == NULL) {
            return NGX_OK;
        }

        if (ngx_http_complex_value(r, permit[i].condition, &s) != NGX_OK) {
            *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
            return NGX_DECLINED;
        }

        /* As for nginx's own "if". */

        if (s.len && !(s.len == 1 && s.data[0] == '0')) {
            return NGX_OK;
        }
    }

    *rc = ngx_http_nango_error(r, NGX_HTTP_FORBIDDEN, "not_permitted",
                               "The caller may not do this");
    return NGX_DECLINED;
}
