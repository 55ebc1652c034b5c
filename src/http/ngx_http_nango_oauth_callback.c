/*
 * Copyright (C) nginx-nango authors
 *
 * nango_oauth_callback [environment];
 *
 * A provider's redirect to the product's own domain goes on to Nango: as a
 * redirect of the browser, never as a proxied request, since a cookie that is
 * set on Nango's own host takes part.  308 keeps the method and the body of
 * providers that post; the query string passes byte for byte.
 */

#include "ngx_http_nango.h"


static ngx_int_t ngx_http_nango_oauth_callback_handler(ngx_http_request_t *r);


char *
ngx_http_nango_oauth_callback(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (cf->args->nelts == 2) {
        nlcf->endpoint.environment_name = value[1];
    }

    nlcf->endpoint.strangers = 1;

    return ngx_http_nango_endpoint(cf, nlcf,
                                   ngx_http_nango_oauth_callback_handler);
}


static ngx_int_t
ngx_http_nango_oauth_callback_handler(ngx_http_request_t *r)
{
    u_char                     *p;
    ngx_str_t                   body, *api;
    ngx_table_elt_t            *location;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    api = &nlcf->endpoint.environment->api_public;

    ngx_http_clear_location(r);

    p = ngx_pnalloc(r->pool, api->len + sizeof("/oauth/callback?") - 1
                             + r->args.len);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* Nothing may fail any more: whatever is in the list is sent. */

    location = ngx_list_push(&r->headers_out.headers);
    if (location == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    location->value.data = p;

    p = ngx_cpymem(p, api->data, api->len);
    p = ngx_cpymem(p, "/oauth/callback", sizeof("/oauth/callback") - 1);

    if (r->args.len) {
        *p++ = '?';
        p = ngx_cpymem(p, r->args.data, r->args.len);
    }

    location->value.len = p - location->value.data;
    location->hash = 1;
#if (nginx_version >= 1023000)
    location->next = NULL;
#endif
    ngx_str_set(&location->key, "Location");

    r->headers_out.location = location;

    ngx_str_set(&body, "");

    return ngx_http_nango_answer(r, NGX_HTTP_PERMANENT_REDIRECT, &body);
}
