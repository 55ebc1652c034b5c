/*
 * Copyright (C) nginx-nango authors
 *
 * nango_integrations id ...;
 *
 * Which integrations a session may be for.  Once the directive is there, a
 * list that turns out empty allows none, rather than all.
 */

#include "ngx_http_nango.h"


char *
ngx_http_nango_integrations_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    ngx_str_t                         *value;
    ngx_uint_t                         i;
    ngx_http_complex_value_t          *cv;

    if (nlcf->integrations == NGX_CONF_UNSET_PTR) {
        nlcf->integrations = ngx_array_create(cf->pool, cf->args->nelts,
                                            sizeof(ngx_http_complex_value_t));
        if (nlcf->integrations == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        cv = ngx_array_push(nlcf->integrations);
        if (cv == NULL) {
            return NGX_CONF_ERROR;
        }

        if (ngx_http_nango_compile(cf, &value[i], cv) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        if (cv->lengths == NULL
            && !nango_integration_valid(ngx_nango_str(&value[i])))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid integration \"%V\"; an id has 1 to "
                               "255 letters, digits, spaces and \"~:.@_-\"",
                               &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_nango_integrations(ngx_http_request_t *r, ngx_array_t *ids)
{
    ngx_str_t                   s;
    ngx_uint_t                  i;
    nango_str_t                *id;
    ngx_http_complex_value_t   *cv;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    cv = nlcf->integrations->elts;

    for (i = 0; i < nlcf->integrations->nelts; i++) {

        if (ngx_http_complex_value(r, &cv[i], &s) != NGX_OK) {
            return NGX_ERROR;
        }

        if (s.len == 0) {
            continue;
        }

        if (!nango_integration_valid(ngx_nango_str(&s))) {
            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "a value of nango_integrations is left out: it is "
                          "no integration id");
            continue;
        }

        id = ngx_array_push(ids);
        if (id == NULL) {
            return NGX_ERROR;
        }

        *id = ngx_nango_str(&s);
    }

    return NGX_OK;
}
